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
