"""Two builds of one panel at once: one panel comes of it, and all its files are there."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from gangru_dist.base.errors import PanelError
from gangru_dist.base.storage import Storage
from gangru_dist.cluster.map import Done, Make, Runner, map_here
from gangru_dist.config.settings import PanelConfig, RunConfig
from gangru_dist.panel.build import build_panel
from gangru_dist.panel.manifest import Manifest, read_manifest
from gangru_dist.panel.store import read_rows
from tests.made_bars import DAYS, make_bars, write

CFG = RunConfig(panel=PanelConfig(features=("close", "daily_return"), buckets=2))


@pytest.fixture
def root(tmp_path: Path) -> Storage:
    return Storage(str(tmp_path / "root"))


def bars_of(folder: Path, frame: pd.DataFrame) -> str:
    write(folder, frame)
    return str(folder)


def interrupted_by(meanwhile: Callable[[], object], *, after: int = 2) -> Runner:
    """A runner that calls something after its first or second stage."""
    stages: list[Sequence[Any]] = []

    def run(cfg: RunConfig, make: Make, items: Sequence[Any], **_: Any) -> Done:
        stages.append(items)
        yield from map_here(cfg, make, items)
        if len(stages) == after:
            meanwhile()

    return run


def build(bars: str, root: Storage, *, overwrite: bool = False) -> Manifest:
    return build_panel(bars, root, CFG, overwrite=overwrite, runner=map_here)


def count_rows(root: Storage, manifest: Manifest) -> int:
    days = {"start": DAYS[0].date(), "end": DAYS[-1].date()}
    return len(read_rows(root, manifest, columns=("date", "asset", "close"), **days))


@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize("overwrite", [False, True])
def test_other_bars_meanwhile_stay(
    root: Storage, tmp_path: Path, there: bool, overwrite: bool
) -> None:
    frame = make_bars()
    early, late = (bars_of(tmp_path / day, frame[frame["date"] <= day])
                   for day in ("2019-03-14", "2019-04-01"))  # fmt: skip
    if there:
        build(early, root)
    ours = bars_of(tmp_path / "ours", frame)
    other = interrupted_by(lambda: build(late, root))
    with pytest.raises(PanelError, match=r"another build has replaced the panel .* same command"):
        build_panel(ours, root, CFG, runner=other, overwrite=overwrite)
    manifest = read_manifest(root)
    assert manifest.source["uri"] == late
    assert count_rows(root, manifest) == manifest.rows
    grown = build(ours, root)
    assert count_rows(root, grown) == grown.rows > manifest.rows


@pytest.mark.parametrize("after", [1, 2])
def test_the_same_bars_meanwhile_are_taken(root: Storage, tmp_path: Path, after: int) -> None:
    bars = bars_of(tmp_path / "bars", make_bars())
    other = interrupted_by(lambda: build(bars, root), after=after)
    built = build_panel(bars, root, CFG, runner=other)
    assert built.to_json() == read_manifest(root).to_json()
    assert count_rows(root, built) == built.rows


def test_other_rows_of_files_that_look_the_same_stay(root: Storage, tmp_path: Path) -> None:
    path, frame = tmp_path / "bars" / "a.csv", make_bars()
    path.parent.mkdir()

    def save(cap: float) -> None:
        path.write_text(frame.assign(market_cap=cap).to_csv(index=False))
        os.utime(path, (1e9, 1e9))

    def build_others() -> None:
        save(2e7)
        build(str(path.parent), root)

    save(1e7)
    with pytest.raises(PanelError, match="another build has replaced the panel"):
        build_panel(str(path.parent), root, CFG, runner=interrupted_by(build_others))


def test_three_at_once(root: Storage, tmp_path: Path) -> None:
    bars = bars_of(tmp_path / "bars", make_bars())
    found: list[object] = []

    def work() -> None:
        try:
            found.append(build(bars, root).fingerprint)
        except Exception as error:  # noqa: BLE001  # to be seen
            found.append(error)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    manifest = read_manifest(root)
    assert found == [manifest.fingerprint] * 3
    assert count_rows(root, manifest) == manifest.rows
    assert not any(name.startswith("staging") for name in root.child("panel").list_files())
