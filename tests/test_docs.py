"""The documentation site: built without a warning, and its commands do what the pages say."""

import ast
import importlib
import importlib.util
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from gangru_dist.base.log import publish
from gangru_dist.base.storage import Storage
from gangru_dist.commands import cli, jobs
from gangru_dist.config.sources import load
from gangru_dist.events.callbacks import open_callbacks
from gangru_dist.events.events import ReportWritten
from gangru_dist.runs.run import Run

ROOT = Path(__file__).parents[1]
TUTORIALS = ROOT / "docs" / "tutorials"
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")), *sorted(TUTORIALS.glob("*.md"))]
BLOCK = re.compile(r"```(\w+)\n(.*?)```", re.DOTALL)
BLOCKS = [
    pytest.param(block, id=f"{path.stem}-{i}")
    for path in PAGES
    for i, (kind, block) in enumerate(BLOCK.findall(path.read_text()))
    if kind == "python"
]


@pytest.mark.parametrize("block", BLOCKS)
def test_code_blocks_are_code_of_this_package(block: str) -> None:
    """They parse, and what they import from here is here."""
    for node in ast.walk(ast.parse(block)):
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("gangru_dist"):
            names = ", ".join(alias.name for alias in node.names)
            exec(f"from {node.module} import {names}", {})


@pytest.mark.parametrize(
    "block",
    [
        pytest.param(block, id=path.stem)
        for path in PAGES
        for kind, block in BLOCK.findall(path.read_text())
        if kind == "toml" and "entry-points" not in block  # `test_wheel` installs those
    ],
)
def test_settings_on_the_pages_are_settings(block: str, tmp_path: Path) -> None:
    (tmp_path / "settings.toml").write_text(block)
    assert load("default", str(tmp_path / "settings.toml")) != load("default", None)


def modules_of_the_pages(folder: Path) -> None:
    """The modules that a reader writes who follows extend.md and tracking.md."""
    for page, module in (("extend", "factors"), ("tracking", "diary")):
        block = next(b for kind, b in BLOCK.findall(text_of(page)) if kind == "python")
        (folder / f"{module}.py").write_text(block)


def text_of(page: str) -> str:
    return (ROOT / f"docs/{page}.md").read_text()


def typed() -> Iterator[tuple[str, str]]:
    """Command and flags of every line that a page shows to type; the log's are history."""
    for page in [*PAGES, ROOT / "cluster/README.md"]:
        text = "" if page.stem == "LOG" else page.read_text().replace("\\\n", " ")
        yield from re.findall(r"^ {4}(?:.* -- python jobs/|gangru )(\S+) (.*)", text, re.M)


@pytest.mark.parametrize(("name", "flags"), dict.fromkeys(typed()))
def test_commands_on_the_pages_are_understood(
    name: str, flags: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their flags and settings; in a storage of one's own, with nothing done."""
    name = Path(name).stem
    if name not in jobs.JOBS:  # `runs`, `settings`, `check-plugin`: tested where they are
        return
    modules_of_the_pages(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "any.toml").write_text("[training]\nepochs = 3\n")
    words = shlex.split(flags, comments=True)
    for flag, value in (("--storage", tmp_path / "s"), ("--config", tmp_path / "any.toml")):
        if flag in words:
            words[words.index(flag) + 1] = str(value)
    idle = replace(jobs.JOBS[name], body=lambda job: cli.Outcome(), plan=lambda job: {})
    monkeypatch.setitem(jobs.JOBS, name, idle)
    assert jobs.run(name, words) == 0


def test_the_callback_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modules_of_the_pages(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    run = Run(Storage("s"), "mine", load("demo", None, ['callbacks=["diary:Diary"]']))
    with open_callbacks(run):
        publish(ReportWritten({"period": {"months": 3}}, "report.html"))
    assert (tmp_path / "diary.txt").read_text().startswith("mine report written {")


def run(words: list[str], folder: Path) -> str:
    """Output of a command in a folder, with `gangru` on the path."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        words,
        cwd=folder,
        env={**os.environ, "PATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, f"{words[-1]}\n{done.stdout[-3000:]}"
    return done.stdout


def follow(page: Path, folder: Path) -> None:
    """Type a tutorial's blocks one after another; what it shows as output must come.

    In an output, `…` stands for anything and a number for any number.
    """
    said = ""
    for kind, block in BLOCK.findall(page.read_text()):
        if kind == "bash":
            said = run(["bash", "-euo", "pipefail", "-c", block], folder)
        elif kind == "python" and block.startswith("# factors.py"):
            (folder / "factors.py").write_text(block)
        elif kind == "python":
            run([sys.executable, "-c", block], folder)
        else:
            assert kind == "text", kind
            for line in block.strip().splitlines():
                known = re.sub(r"\d+", r"\\d+", re.escape(line.strip()).replace("…", ".*"))
                assert re.search(known, said), f"{line}\n{said[-3000:]}"


def test_all_tutorials_can_be_typed_in_one_folder() -> None:
    """None writes over another's file, or builds other bars into another's storage."""
    text = "\n".join(page.read_text() for page in TUTORIALS.glob("*.md"))
    files = re.findall(r"^cat > (\S+)", text, re.MULTILINE)
    assert len(files) == len(set(files)) > 1
    built = set(re.findall(r"--bars (\S+) --storage (\S+)", text))
    storages = [storage for _, storage in built]
    assert len(storages) == len(set(storages)) > 1, built


@pytest.mark.slow
def test_the_tutorial_of_your_own_bars(tmp_path: Path) -> None:
    follow(TUTORIALS / "own-bars.md", tmp_path)


@pytest.mark.slow
@pytest.mark.trials
def test_the_tutorial_of_a_feature_of_your_own(tmp_path: Path) -> None:
    follow(TUTORIALS / "own-feature.md", tmp_path)


@pytest.mark.slow
@pytest.mark.trials
def test_the_first_run_and_what_can_be_done_with_it(tmp_path: Path) -> None:
    follow(TUTORIALS / "first-run.md", tmp_path)
    follow(TUTORIALS / "report.md", tmp_path)
    run([sys.executable, "-c", scores_page()], tmp_path)


def scores_page() -> str:
    """The blocks of docs/scores.md as a reader with the first run's storage types them."""
    blocks = [block for kind, block in BLOCK.findall((ROOT / "docs/scores.md").read_text())]
    if importlib.util.find_spec("alphalens") is None:
        blocks = [block for block in blocks if "alphalens.utils" not in block]
    text = "\n".join(blocks)
    for old, new in {
        "s3://bucket/gangru": "demo-storage",
        '"storage': '"demo-storage',
        "monthly": "demo",
        "17": "0",
        "dt.datetime(2026, 3, 1, 8)": "dt.datetime.now()",
    }.items():
        assert old in text, old
        text = text.replace(old, new)
    return re.sub(r"^spark.*\n", "", text, flags=re.MULTILINE)


def packages() -> dict[str, set[str]]:
    """Package -> its modules, as docs/architecture.md says."""
    table = (ROOT / "docs/architecture.md").read_text().split("## Packages")[1].split("\n## ")[0]
    lines = [line.split(" | ") for line in table.splitlines() if line.startswith(("| `", "| (n"))]
    return {
        line[0].strip("| `/").replace("(none)", ""): set(re.findall(r"`(\w+)`", line[2]))
        for line in lines
    }


def test_architecture_names_every_module_and_no_other() -> None:
    package, told = ROOT / "gangru_dist", packages()
    there = {
        folder: {p.stem for p in (package / folder).glob("*.py") if not p.stem.startswith("__")}
        for folder in ("", *(path.parent.name for path in package.glob("*/__init__.py")))
    }
    assert told == there


def test_names_of_the_data_flow_are_there() -> None:
    """Names such as `panel.staging.StagedRows`: a module of ours and what it has."""
    names = re.findall(r"`(\w+\.\w+)\.(\w+)`", text_of("data-flow"))
    assert len(names) > 50
    for module, name in names:
        assert hasattr(importlib.import_module(f"gangru_dist.{module}"), name), f"{module}.{name}"


@pytest.mark.slow
def test_the_site(tmp_path: Path) -> None:
    pytest.importorskip("sphinx")
    build = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-c", "docs", "."]
    done = subprocess.run([*build, tmp_path], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    pages = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.html")}
    assert {"README.html", "docs/index.html", "docs/extend.html"} <= pages
    assert {f"docs/tutorials/{page.stem}.html" for page in TUTORIALS.glob("*.md")} <= pages
    assert "docs/generated/settings.html" in pages
    text = (tmp_path / "docs/generated/settings.html").read_text()
    assert "gru.hidden" in text
    api = (tmp_path / "docs/generated/api.html").read_text()
    assert "train_windows" in api
    assert "on_figures" in api
