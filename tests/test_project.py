"""The project's own files agree with each other."""

import importlib
import pkgutil
import re
import tomllib
import typing
from collections import defaultdict
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import gangru_dist
from gangru_dist.config.identity import SETTINGS

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PINS = dict(
    line.split("==") for line in (ROOT / "requirements.lock").read_text().splitlines() if line
)
PINNED = {canonicalize_name(name): version for name, version in PINS.items()}
ASKED = [
    Requirement(text)
    for text in [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]]
]


@pytest.mark.parametrize("requirement", ASKED, ids=lambda requirement: requirement.name)
def test_the_lock_pins_what_the_project_asks(requirement: Requirement) -> None:
    assert PINNED[canonicalize_name(requirement.name)] in requirement.specifier


def test_the_lock_names_no_index_and_no_build_of_one_machine() -> None:
    assert all(re.fullmatch(r"[0-9][0-9a-z.]*", version) for version in PINNED.values())


def test_the_readme_points_at_files_that_are_there() -> None:
    text = (ROOT / "README.md").read_text()
    named = re.findall(r"\]\(([\w./-]+)\)|(jobs/\w+\.py)", text)
    assert named
    for link, job in named:
        assert (ROOT / (link or job)).exists(), link or job


MODULES = defaultdict(list)
for module in pkgutil.walk_packages(gangru_dist.__path__, "gangru_dist."):
    MODULES[module.name.rpartition(".")[2]].append(module.name)
SECTIONS = {key.partition(".")[0] for key in SETTINGS}
PROSE = [
    *(p for p in ROOT.glob("docs/**/*.md") if p.name != "LOG.md" and "generated" not in p.parts),
    *ROOT.glob("gangru_dist/**/*.py"),
    *ROOT.glob("jobs/*.py"),
    ROOT / "README.md",
]
FILES = re.compile(r"[\w./-]+\.(py|md)|(tests|benchmarks|jobs|cluster|docs)/[\w./-]+")
NAMES = re.compile(r"[a-z_]\w*(\.\w+)+")
DATA = (".json", ".log", ".html", ".csv", ".toml", ".parquet", ".safetensors")


def citations(text: str) -> set[str]:
    """What stands in backticks, without arguments."""
    return {found.partition("(")[0] for found in re.findall(r"`([^`\n]+)`", text)}


def is_file(cited: str, where: Path) -> bool:
    folders = (ROOT, ROOT / "gangru_dist", ROOT / "jobs", where.parent)
    return any((folder / cited).exists() for folder in folders)


def is_setting(cited: str) -> bool:
    tables = (key for key, one in SETTINGS.items() if typing.get_origin(one.type) is dict)
    return cited in SETTINGS or any(cited.startswith(f"{key}.") for key in tables)


def is_code(cited: str) -> bool:
    """Whether it is there below some module of ours of the first part's name."""
    first, *rest = cited.split(".")
    for name in MODULES[first]:
        found = importlib.import_module(name)
        for part in rest:
            if part in MODULES and hasattr(found, "__path__"):
                importlib.import_module(f"{found.__name__}.{part}")
            found = getattr(found, part, None)
        if found is not None:
            return True
    return False


@pytest.mark.parametrize("path", PROSE, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_is_cited_is_there(path: Path) -> None:
    """Files, `module.name` and `section.setting` in backticks."""
    for cited in citations(path.read_text()):
        if FILES.fullmatch(cited):
            assert is_file(cited, path), cited
        elif NAMES.fullmatch(cited) and not cited.endswith(DATA):
            first = cited.partition(".")[0]
            if first in SECTIONS or first in MODULES:
                assert is_setting(cited) or is_code(cited), cited


@pytest.mark.parametrize("gone", ["cli.main", "config.model_setings", "ic.no_ic", "samples.gone"])
def test_the_check_of_citations_has_teeth(gone: str) -> None:
    assert citations(f"`{gone}()` and `x` {gone}") == {gone, "x"}
    assert not is_setting(gone)
    assert not is_code(gone)
