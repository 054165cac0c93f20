"""The documentation site is built without a warning; its code is at least code."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BLOCKS = [
    pytest.param(block, id=f"{path.stem}-{i}")
    for path in [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))]
    for i, block in enumerate(re.findall(r"```python\n(.*?)```", path.read_text(), re.DOTALL))
]


@pytest.mark.parametrize("block", BLOCKS)
def test_code_blocks_are_code_of_this_package(block: str) -> None:
    """They parse, and what they import from here is here."""
    for node in ast.walk(ast.parse(block)):
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("gangru_dist"):
            names = ", ".join(alias.name for alias in node.names)
            exec(f"from {node.module} import {names}", {})


def rooms() -> dict[str, set[str]]:
    """Room -> its modules, as docs/architecture.md says."""
    table = (ROOT / "docs/architecture.md").read_text().split("## Rooms")[1].split("\n## ")[0]
    lines = [line.split(" | ") for line in table.splitlines() if line.startswith(("| `", "| (n"))]
    return {
        line[0].strip("| `/").replace("(none)", ""): set(re.findall(r"`(\w+)`", line[2]))
        for line in lines
    }


def test_architecture_names_every_module_and_no_other() -> None:
    package, told = ROOT / "gangru_dist", rooms()
    there = {
        folder: {p.stem for p in (package / folder).glob("*.py") if not p.stem.startswith("__")}
        for folder in ("", *(path.parent.name for path in package.glob("*/__init__.py")))
    }
    assert told == there


@pytest.mark.parametrize("page", ["architecture", "where", "extend", "data", "training"])
def test_modules_that_a_page_names_are_there(page: str) -> None:
    """Names such as `bars/formats.py`, `runs.run.Run`, `training/slot.py`."""
    package = ROOT / "gangru_dist"
    text = (ROOT / f"docs/{page}.md").read_text()
    for name in re.findall(r"`((?:\w+/)*\w+\.py)`", text):
        assert (package / name).exists() or (ROOT / name).exists(), name


@pytest.mark.slow
def test_the_site(tmp_path: Path) -> None:
    pytest.importorskip("sphinx")
    build = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-c", "docs", "."]
    done = subprocess.run([*build, tmp_path], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    pages = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.html")}
    assert {"README.html", "docs/index.html", "docs/extend.html"} <= pages
    assert "docs/generated/settings.html" in pages
    text = (tmp_path / "docs/generated/settings.html").read_text()
    assert "gru.hidden" in text
    assert "train_windows" in (tmp_path / "docs/generated/api.html").read_text()
