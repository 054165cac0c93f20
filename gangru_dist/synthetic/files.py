"""Names of the synthetic market's files, by which they are recognized."""

from __future__ import annotations

import re

from gangru_dist.storage import Storage

FILE = re.compile(r"\d{4}-[0-9a-f]{12}\.parquet")
"""Year and hash of the content."""


def is_made_up(bars: Storage) -> bool:
    """Whether a folder holds the made-up market's bars, and nothing else."""
    names = bars.list_files()
    return bool(names) and all(FILE.fullmatch(name) for name in names)
