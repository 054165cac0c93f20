"""The project's own files agree with each other."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

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
