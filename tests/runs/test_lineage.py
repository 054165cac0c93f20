"""Which code a run and its models are of."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from gangru_dist.base.records import read_code_version


def test_the_commit_is_the_source_trees():
    tree = Path(__file__).parents[2]
    if not (tree / ".git").exists():
        pytest.skip("no checkout")
    command = ["git", "rev-parse", "HEAD"]
    head = subprocess.run(command, cwd=tree, capture_output=True, text=True, check=True)
    assert str(read_code_version()["commit"]).removesuffix("-dirty") == head.stdout.strip()
