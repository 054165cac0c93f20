"""SECURITY.md's promises that need no cluster: names, pickles, what the report makes of names."""

import ast
import dataclasses
import runpy
from pathlib import Path

import numpy as np
import pytest

from gangru_dist.base.errors import StorageError
from gangru_dist.base.storage import Storage
from gangru_dist.commands import main
from gangru_dist.commands.jobs import JOBS
from gangru_dist.report.document import write_report
from gangru_dist.runs.run import Run
from tests.evaluation.worlds import config, random_table
from tests.report.store import CFG, RUN, make_block, write_factor, write_models, write_panel

PROJECT = Path(__file__).parents[1]
SOURCES = [*(PROJECT / "jobs").glob("*.py"), *(PROJECT / "gangru_dist").rglob("*.py")]
EVIL = "<script>alert(1)</script>"


class TestNames:
    @pytest.mark.parametrize("name", ["../../x", "..", "/etc", "a/b", "-x/../y"])
    def test_a_run_stays_in_its_folder(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
    ) -> None:
        for job in JOBS:
            bars = ["--bars", "synthetic"] if job in ("panel", "pipeline") else []
            assert main([job, "--storage", str(tmp_path / "a/b"), f"--run={name}", *bars]) == 2
            assert f"--run {name!r} cannot be a folder name" in capsys.readouterr().err
        assert list(tmp_path.iterdir()) == []

    def test_a_compared_run_too(self, tmp_path: Path) -> None:
        with pytest.raises(StorageError, match=r"--compare '\.\./\.\./x' cannot be"):
            write_report(Run(Storage(str(tmp_path)), RUN, config()), "../../x")


class TestPickles:
    FORBIDDEN = frozenset(
        {"pickle.load", "pickle.loads", "torch.load", "yaml.load", "joblib.load", "eval", "exec"}
    )
    ALLOWED = frozenset({("map.py", "pickle.loads")})
    """Rows within Ray, never storage."""

    def calls(self, source: str) -> set[str]:
        nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
        return {ast.unparse(node.func) for node in nodes} & self.FORBIDDEN

    def test_nothing_from_storage_is_unpickled(self) -> None:
        calls = {(path.name, call) for path in SOURCES for call in self.calls(path.read_text())}
        assert calls == self.ALLOWED

    def test_the_check_has_teeth(self) -> None:
        assert self.calls("x = torch.load(file)") == {"torch.load"}

    def test_numpy_files_hold_no_objects(self) -> None:
        assert all("allow_pickle=True" not in path.read_text() for path in SOURCES)


@pytest.mark.slow
class TestReport:
    def test_names_of_stocks_and_industries_are_escaped(self, tmp_path: Path) -> None:
        block = make_block()
        assets = np.array(
            sorted(f"{EVIL}{n:02d}" for n in range(40)), dtype=block.assets.dtype.kind
        )
        industries = tuple(f"{EVIL} & {name}" for name in block.industries)
        block = dataclasses.replace(block, assets=assets, industries=industries)
        root = Storage(str(tmp_path))
        write_panel(root, block)
        write_models(root, RUN)
        write_factor(root, RUN, random_table(block, seed=10))
        write_report(Run(root, RUN, CFG))
        page = root.child("runs", RUN, "report").read_bytes("report.html").decode()
        assert page.count("<script") == 1  # the page's own
        assert EVIL not in page
        assert "&lt;script&gt;alert(1)" in page


KNOWN = {"name": "safe", "version": "1.0", "vulns": []}
WEAK_SPOT = {"id": "PYSEC-2026-1", "fix_versions": ["2.1"]}
WEAK = {"name": "weak", "version": "2.0", "vulns": [WEAK_SPOT]}
UNKNOWN = {"name": "private", "skip_reason": "not found"}


class TestAudit:
    """Of what pip-audit says, in `.ci/findings.py`."""

    def summed_up(self, *packages: dict[str, object]) -> tuple[list[str], int]:
        findings = runpy.run_path(str(PROJECT / ".ci/findings.py"))["findings"]
        summary: tuple[list[str], int] = findings({"dependencies": list(packages)})
        return summary

    def test_a_finding_fails(self) -> None:
        lines, status = self.summed_up(KNOWN, WEAK, UNKNOWN)
        assert lines[0] == "weak 2.0: PYSEC-2026-1, fixed in 2.1"
        assert lines[1] == "audited 2 packages, 1 known weaknesses; not audited: private"
        assert status == 1

    def test_none_passes(self) -> None:
        assert self.summed_up(KNOWN) == (["audited 1 packages, 0 known weaknesses"], 0)

    def test_a_service_that_knows_nothing_is_no_audit(self) -> None:
        lines, status = self.summed_up(UNKNOWN)
        assert lines == ["audit skipped: no advisory service knows any of 1 packages"]
        assert status == 0
