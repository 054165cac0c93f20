"""Version and commit of the running code, as stored with each run and model."""

from __future__ import annotations

import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def code_version() -> dict[str, str | None]:
    """`package_version` and `commit` of this process's code; JSON types.

    Workers may have the source without its git history, so the driver passes its own on to them.
    """
    return {"package_version": _version(), "commit": _commit()}


def _version() -> str:
    try:
        return version("gangru_dist")
    except PackageNotFoundError:
        return "not installed"


def _commit() -> str | None:
    """Commit of the source tree, with `-dirty` if there are changes; None without git."""
    source = Path(__file__).parents[2]
    if not (source / "pyproject.toml").exists():  # installed: a repository above is not ours
        return None
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, cwd=source, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
