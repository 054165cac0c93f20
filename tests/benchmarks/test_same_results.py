"""The comparison of two storages sees a bit of a weight, a row and a figure."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from benchmarks.same_results import main
from gangru_dist.base.storage import Storage
from tests.evaluation.worlds import random_table
from tests.report.store import RUN, make_block, write_factor, write_world

MODEL = "windows/2019-06-28/seed-0/model.json"
WEIGHTS = "windows/2019-06-28/seed-0/model.safetensors"


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("before")
    run = write_world(folder).root.child("runs", RUN)
    run.write_json("report/metrics.json", {"ic": {"mean": 0.07}, "package_version": "1"})
    return folder


@pytest.fixture
def after(before: Path, tmp_path: Path) -> Storage:
    return Storage(shutil.copytree(before, tmp_path / "after").as_posix())


def other_weights(run: Storage) -> None:
    run.write_json(MODEL, run.read_json(MODEL) | {"sha256": "f" * 64})


def no_model(run: Storage) -> None:
    run.delete(MODEL)


def other_figure(run: Storage) -> None:
    run.write_json("report/metrics.json", {"ic": {"mean": 0.07 + 2e-17}})


def test_the_same_but_for_versions(
    before: Path, after: Storage, capsys: pytest.CaptureFixture[str]
) -> None:
    run = after.child("runs", RUN)
    run.write_json("report/metrics.json", {"ic": {"mean": 0.07}, "package_version": "2"})
    run.write_json(MODEL, run.read_json(MODEL) | {"seconds": 1.0, "commit": "other"})
    assert main([str(before), after.uri]) == 0
    assert "DIFFERS" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "says"),
    [(other_weights, "model 2019-06-28"), (no_model, "none"), (other_figure, "ic.mean")],
)
def test_a_difference(
    before: Path,
    after: Storage,
    change: Callable[[Storage], None],
    says: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    change(after.child("runs", RUN))
    assert main([str(before), after.uri]) == 1
    (line, *_) = [one for one in capsys.readouterr().out.splitlines() if one.endswith("DIFFERS")]
    assert says in line or says == "ic.mean"


@pytest.mark.parametrize(("old", "new", "status"), [("a", "ab", 0), ("ab", "a", 1)])
def test_figures_may_come_but_not_go(
    after: Storage,
    tmp_path: Path,
    old: str,
    new: str,
    status: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    earlier = Storage(shutil.copytree(after.uri, tmp_path / "earlier").as_posix())
    for storage, names in ((earlier, old), (after, new)):
        storage.child("runs", RUN).write_json("report/metrics.json", dict.fromkeys(names, 0.5))
    assert main([earlier.uri, after.uri]) == status
    assert status or "1 of them, 1 more" in capsys.readouterr().out


@pytest.mark.parametrize(("tolerance", "status"), [("0", 1), ("1e-7", 1), ("1e-4", 0)])
def test_differences_within_a_tolerance(
    before: Path, after: Storage, tolerance: str, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    run = after.child("runs", RUN)
    for folder, by in ((Storage(before.as_posix()).child("runs", RUN), 1.0), (run, 1 + 1e-5)):
        weights = {"w": np.array([by, -0.5], dtype=np.float32)}
        folder.write_bytes(WEIGHTS, save(weights))
    other_weights(run)
    run.write_json("report/metrics.json", {"ic": {"mean": 0.07 + 1e-6}})
    table = random_table(make_block(), seed=10)
    write_factor(after, RUN, table.assign(score=table["score"] + 1e-5))
    assert main([str(before), after.uri, "--tolerance", tolerance]) == status
    if tolerance == "1e-4":
        assert "1.0e-05 apart" in capsys.readouterr().out


def test_another_row(before: Path, after: Storage, capsys: pytest.CaptureFixture[str]) -> None:
    write_factor(after, RUN, random_table(make_block(), seed=11))
    assert main([str(before), after.uri]) == 1
    assert "factor table" in capsys.readouterr().out


def test_a_run_that_is_missing(
    before: Path, after: Storage, capsys: pytest.CaptureFixture[str]
) -> None:
    after.delete(f"runs/{RUN}/config.json")
    assert main([str(before), after.uri]) == 1
