"""Sum up pip-audit's JSON report; exit status 1 on a finding.

A package that the advisory service does not know counts as not audited, never as safe.
"""

import json
import sys
from pathlib import Path
from typing import Any


def findings(report: dict[str, Any]) -> tuple[list[str], int]:
    """Lines to print, and the exit status."""
    packages = report["dependencies"]
    unknown = [package["name"] for package in packages if "skip_reason" in package]
    known = [package for package in packages if "skip_reason" not in package]
    if not known:
        return [f"audit skipped: no advisory service knows any of {len(packages)} packages"], 0
    lines = [
        f"{package['name']} {package['version']}: {found['id']}, fixed in "
        f"{', '.join(found['fix_versions']) or 'no version yet'}"
        for package in known
        for found in package["vulns"]
    ]
    not_audited = f"; not audited: {', '.join(unknown)}" if unknown else ""
    last = f"audited {len(known)} packages, {len(lines)} known weaknesses{not_audited}"
    return [*lines, last], int(bool(lines))


if __name__ == "__main__":
    texts, status = findings(json.loads(Path(sys.argv[1]).read_text()))
    sys.stdout.write("\n".join(texts) + "\n")
    raise SystemExit(status)
