"""The documentation site: `make docs`, then open build/site/docs/index.html.

Pages are the Markdown files that a reader of the repository sees. The references of settings,
commands and the Python API are made from the code.
"""

from __future__ import annotations

import importlib
import io
from collections import defaultdict
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import Any

import gangru_dist
from gangru_dist.commands import SUMMARIES, main
from gangru_dist.commands.settings import list_rows
from gangru_dist.config.sources import format_toml

project = "gangru_dist"
version = release = gangru_dist.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
root_doc = "docs/index"
include_patterns = [
    "*.md",
    "docs/*.md",
    "docs/decisions/*.md",
    "docs/tutorials/*.md",
    "docs/generated/*",
    "cluster/README.md",
]
default_role = "code"  # docstrings are Markdown in this respect
html_theme = "alabaster"  # readable on a telephone too
html_theme_options = {
    "page_width": "1120px",
    "sidebar_width": "270px",
}  # below: contents at the end
html_static_path = ["static"]  # custom.css: the night
html_show_copyright = False

html_sidebars = {"**": ["searchbox.html", "globaltoc.html"]}
myst_heading_anchors = 3
autodoc_typehints = "description"
autodoc_member_order = "bysource"
suppress_warnings = [
    "myst.xref_missing"
]  # links to code files and folders, right in the repository

GENERATED = Path(__file__).parent / "generated"


def settings_page() -> str:
    """Every setting by section: `gangru settings` as a page."""
    sections: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in list_rows():
        section = row["key"].rpartition(".")[0]
        sections[section or "run"].append(row)
    lines = ["# Settings", "", "Made from the code; `gangru settings` prints the same.", ""]
    for name, rows in sections.items():
        lines += [f"## {name}", "", "| setting | default | type | affects | meaning |"]
        lines += ["|---|---|---|---|---|"]
        lines += [_format_row(row) for row in rows] + [""]
    return "\n".join(lines)


def _format_row(row: dict[str, Any]) -> str:
    affects = ", ".join(row["affects"])
    value = format_toml(row["value"])
    cells = (f"`{row['key']}`", f"`{value}`", f"`{row['kind']}`", affects, row["meaning"])
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def commands_page() -> str:
    """`--help` of every command."""
    lines = ["# Commands", ""]
    for name in SUMMARIES:
        text = io.StringIO()
        with redirect_stdout(text), suppress(SystemExit):
            main([name, "--help"])
        lines += [f"## gangru {name}", "", "```text", text.getvalue().rstrip(), "```", ""]
    return "\n".join(lines)


def api_page() -> str:
    """Everything in `gangru_dist.__all__`, where it is defined."""
    lines = ["Python API", "==========", ""]
    for name in gangru_dist.__all__:
        item = getattr(gangru_dist, name)
        if callable(item):
            lines += [f".. autofunction:: gangru_dist.{name}", ""]
    lines += [".. automodule:: gangru_dist.events.callbacks", ""]
    for place in (
        "evaluation.summary.Evaluation",
        "panel.block.PanelBlock",
        "events.callbacks.Series",
    ):
        module, _, name = place.rpartition(".")
        importlib.import_module(f"gangru_dist.{module}")
        lines += [f".. autoclass:: gangru_dist.{module}.{name}", "   :members:", ""]
    return "\n".join(lines)


def setup(app: Any) -> None:
    """Write the pages that come from the code."""
    GENERATED.mkdir(exist_ok=True)
    pages = {"settings.md": settings_page, "commands.md": commands_page, "api.rst": api_page}
    for name, page in pages.items():
        (GENERATED / name).write_text(page())
