"""All stages from the checkout, twice; and the wheel outside of it, which does the same."""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tiny import FLAGS, SETTINGS

from gangru_dist import read_factor
from gangru_dist.base.storage import Storage
from gangru_dist.config.sources import load
from gangru_dist.runs.run import Run

ROOT = Path(__file__).parents[1]


def call(*words: str | Path, cwd: Path) -> str:
    """Standard output; outside the checkout, and nothing of it on the path."""
    kept = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "RAY_ADDRESS")}
    done = subprocess.run([*map(str, words)], cwd=cwd, env=kept, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def ours(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run after all stages, from the checkout."""
    root = Storage(str(tmp_path_factory.mktemp("ours")))
    run = Run(root, "tiny", load("demo", None, SETTINGS))
    assert run_all_stages(run).ok
    return run


def run_all_stages(run: Run) -> Any:
    from gangru_dist.api import SYNTHETIC, run_pipeline

    return run_pipeline(run, bars=SYNTHETIC)


@pytest.mark.ray
@pytest.mark.slow
def test_all_stages_twice_give_the_same(ours: Run) -> None:
    folder = Path(ours.folder.path)
    assert (folder / "report/report.html").stat().st_size > 10_000
    progress = (folder / "progress.html").read_text()
    for words in ("<b>Done</b>", "reading bars", "computing features", "2018-12-31", "scoring"):
        assert words in progress
    files = [path for path in (folder / "windows").rglob("*") if path.is_file()]
    models = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in files}
    assert sum(path.name == "model.json" for path in models) == 1
    metrics = json.loads((folder / "report/metrics.json").read_text())
    assert run_all_stages(ours).ok
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in files} == models
    assert json.loads((folder / "report/metrics.json").read_text()) == metrics


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of an environment's scripts that has the wheel, and this one's libraries."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder]
    call(*build, str(ROOT), cwd=folder)
    (wheel,) = folder.glob("*.whl")
    python = make_environment(folder)
    install(python, "--ignore-installed", wheel)
    return python.parent


def make_environment(folder: Path) -> Path:
    """The interpreter of a new environment that has this one's libraries."""
    venv.create(folder / "env", with_pip=False, symlinks=True)
    python = folder / "env" / "bin" / "python"
    site = call(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder)
    # its libraries by name: of an editable install's own .pth nothing is read this way
    Path(site.strip(), "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


def install(python: Path, *what: str | Path) -> None:
    """By pip, from files alone."""
    pip = [sys._base_executable, "-m", "pip", "--python", python, "install", "--quiet"]
    call(*pip, "--no-deps", "--no-index", *what, cwd=python.parent)


@pytest.mark.slow
class TestWheel:
    def test_it_is_the_wheels_code_that_runs(self, installed: Path, tmp_path: Path) -> None:
        code = "import gangru_dist; print(gangru_dist.__file__)"
        assert str(ROOT) not in call(installed / "python", "-c", code, cwd=tmp_path)
        version = call(installed / "gangru", "--version", cwd=tmp_path)
        assert version.startswith("gangru_dist 0.")
        assert "gan.dropout = 0.25" in call(installed / "gangru", "settings", "gan", cwd=tmp_path)

    @pytest.mark.ray
    def test_the_same_factor_as_from_the_checkout_and_without_ray(
        self, installed: Path, ours: Run, tmp_path: Path
    ) -> None:
        words = ["pipeline", "--preset", "demo", "--bars", "synthetic", "--run", "tiny", *FLAGS]
        call(installed / "gangru", *words, "--here", "--storage", tmp_path, cwd=tmp_path)
        expected, theirs = (read_factor(uri, "tiny") for uri in (ours.root.uri, str(tmp_path)))
        assert len(expected) > 1000
        pd.testing.assert_frame_equal(expected, theirs)


@pytest.mark.slow
def test_a_checkout_is_imported_from_the_folder_that_it_lies_in(tmp_path: Path) -> None:
    """There the folder of the checkout has the package's name, and is none."""
    checkout = tmp_path / "gangru_dist"
    shutil.copytree(ROOT / "gangru_dist", checkout / "gangru_dist")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, checkout)
    python = make_environment(tmp_path)
    install(python, "--ignore-installed", "--no-build-isolation", "--editable", checkout)
    code = "import gangru_dist; print(gangru_dist.open_run.__name__, gangru_dist.__file__)"
    shown = call(python, "-c", code, cwd=tmp_path)
    assert shown == f"open_run {checkout}/gangru_dist/__init__.py\n"


@pytest.fixture(scope="module")
def with_package(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a package of docs/extend.md's code and entry points."""
    text = (ROOT / "docs" / "extend.md").read_text()
    code, points = (
        re.findall(rf"```{kind}\n(.*?)```", text, re.DOTALL)[0] for kind in ("python", "toml")
    )
    folder = tmp_path_factory.mktemp("package")
    (folder / "my_package").mkdir()
    (folder / "my_package" / "__init__.py").touch()
    (folder / "my_package" / "factors.py").write_text(code)
    head = '[project]\nname = "my_package"\nversion = "1"\n'
    (folder / "pyproject.toml").write_text(head + points)
    install(installed / "python", "--no-build-isolation", folder)
    return installed


@pytest.mark.slow
class TestPackage:
    """A feature and a predictor that an installed package has, by their entry points."""

    def test_the_check_finds_them(self, with_package: Path, tmp_path: Path) -> None:
        names = ("mean", "surprise", "squared")
        shown = call(with_package / "gangru", "check-plugin", *names, cwd=tmp_path)
        assert shown.splitlines() == [f"{name}: keeps the promises" for name in names]

    @pytest.mark.ray
    @pytest.mark.trials
    def test_two_workers_train_what_one_does(self, with_package: Path, tmp_path: Path) -> None:
        own = ["predictor=mean", 'panel.features=["close", "volume", "surprise"]']
        for workers in (1, 2):
            more = [f"resources.workers={workers}", "training.precision=float64", *own]
            flags = [*FLAGS, *(word for one in more for word in ("--set", one))]
            words = ["pipeline", "--preset", "demo", "--bars", "synthetic", "--run", f"w{workers}"]
            call(with_package / "gangru", *words, *flags, "--storage", "s", cwd=tmp_path)
        one, two = (read_factor(str(tmp_path / "s"), f"w{workers}") for workers in (1, 2))
        assert len(one) > 1000
        assert one["window"].nunique() > 0
        keys = ["date", "asset", "quantile", "window"]
        pd.testing.assert_frame_equal(one[keys], two[keys])
        np.testing.assert_allclose(one["factor"], two["factor"], rtol=0, atol=1e-6)
