"""The panel build: whole or not at all, and not again without a reason; on a cluster and here."""

from __future__ import annotations

import datetime as dt
import logging
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gangru_dist.base.errors import BarsError
from gangru_dist.base.storage import Storage
from gangru_dist.config.settings import PanelConfig, RunConfig
from gangru_dist.panel import build as panel_build
from gangru_dist.panel.build import build_panel
from gangru_dist.panel.manifest import read_manifest
from gangru_dist.panel.store import read_block

pytestmark = pytest.mark.usefixtures("where")

FEATURES = ("close", "volume", "daily_return")
CFG = RunConfig(panel=PanelConfig(features=FEATURES, buckets=3))


def make_bars(days: int = 30, assets: int = 8) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    index = pd.MultiIndex.from_product(
        [[f"{600000 + i}.SH" for i in range(assets)], pd.bdate_range("2018-12-10", periods=days)],
        names=["code", "date"],
    )
    frame = index.to_frame(index=False)
    close = 10 + rng.random(len(frame))
    return frame.assign(
        open=close,
        high=close * 1.01,
        low=close * 0.99,
        close=close,
        volume=100.0,
        amount=100 * close,
        adj_factor=1.0,
    )


@pytest.fixture(params=["here", pytest.param("cluster", marks=pytest.mark.ray)])
def where(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process, which starts no Ray, or through Ray Data, as large bars go."""
    if request.param == "cluster":
        request.getfixturevalue("ray_cluster")
        monkeypatch.setattr(panel_build, "SMALL_BYTES", 0)
    else:
        monkeypatch.setattr(panel_build.session, "open_session", _no_ray)


def _no_ray(_: RunConfig) -> None:
    raise AssertionError("small bars need no Ray")


@pytest.fixture
def bars(tmp_path: Path) -> Path:
    """Two files, by year."""
    folder = tmp_path / "bars"
    folder.mkdir()
    for year, rows in make_bars().groupby(lambda i: make_bars()["date"].dt.year[i]):
        rows.to_parquet(folder / f"{year}.parquet", index=False)
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Storage:
    return Storage(str(tmp_path / "storage"))


class TestReference:
    def test_a_block_of_what_was_built(self, bars: Path, root: Storage) -> None:
        manifest = build_panel(str(bars), root, CFG)
        frame = make_bars()
        days = pd.bdate_range("2018-12-10", periods=30)
        block = read_block(root, manifest, start=days[0].date(), end=days[-1].date())
        close = frame.pivot_table(index="date", columns="code", values="close")
        np.testing.assert_array_equal(block.adj_close, close)
        np.testing.assert_allclose(
            block.features[..., 2], close.pct_change(fill_method=None), rtol=1e-5, atol=1e-7
        )
        np.testing.assert_array_equal(block.listed_days[:, 0], np.arange(30))
        assert (manifest.rows, manifest.assets, len(manifest.calendar)) == (240, 8, 30)
        assert not manifest.has_industry
        quality = root.child("panel").read_json("quality.json")
        assert quality["rows_read"] == quality["rows_kept"] == 240
        assert quality["optional_columns_missing"]["industry"]["files"] == 2


class TestProperties:
    def test_again_does_nothing_until_something_changes(
        self, bars: Path, root: Storage, caplog: pytest.LogCaptureFixture
    ) -> None:
        first = build_panel(str(bars), root, CFG)
        with caplog.at_level(logging.INFO, logger="gangru_dist"):
            logging.getLogger("gangru_dist").propagate = True
            assert build_panel(str(bars), root, CFG).to_json() == first.to_json()
            assert "panel_kept" in caplog.text
        later = make_bars(days=35)
        later = later[later["date"] > "2019-01-18"]
        later.to_parquet(bars / "later.parquet", index=False)
        grown = build_panel(str(bars), root, CFG)
        assert grown.rows == 280
        assert grown.fingerprint != first.fingerprint
        day = dt.date(2018, 12, 31)
        assert grown.fingerprint_to(day) == first.fingerprint_to(day)
        on_disk = [n for n in root.child("panel").list_files() if n.endswith(".parquet")]
        assert on_disk == sorted({file.name for file in (*first.files, *grown.files)})

    def test_what_a_killed_build_left_goes_a_day_later(self, bars: Path, root: Storage) -> None:
        panel = root.child("panel")
        for kind in ("dead", "running"):
            panel.write_bytes(f"staging-{kind}/unit.arrow", b"half")
            panel.write_bytes(f"bucket=00/2018-{kind}.parquet", b"half")
            Path(panel.full_path(f"bucket=00/x-{kind}.{'a' * 32}.part")).write_bytes(b"ha")
        panel.write_bytes("staging-running/dead-first.arrow", b"of a build that takes days")
        for file in Path(panel.path).rglob("*dead*"):
            for path in (file, *file.rglob("*")):
                os.utime(path, (1e9, 1e9))
        manifest = build_panel(str(bars), root, CFG)
        left = {str(file.relative_to(panel.path)) for file in Path(panel.path).rglob("*.*")}
        assert left == {file.name for file in manifest.files} | {
            "manifest.json", "quality.json",
            "staging-running/unit.arrow", "staging-running/dead-first.arrow",
            "bucket=00/2018-running.parquet", f"bucket=00/x-running.{'a' * 32}.part",
        }  # fmt: skip
        assert not Path(panel.full_path("staging-dead")).exists()


class TestValidation:
    def test_refused_bars_leave_the_panel_as_it_was(self, bars: Path, root: Storage) -> None:
        before = build_panel(str(bars), root, CFG).to_json()
        make_bars().head(3).assign(close=lambda f: f["close"] + 0.1, high=12.0).to_parquet(
            bars / "x.parquet"
        )
        with pytest.raises(BarsError, match=r"contradict .* in 2018.parquet, .* in x.parquet"):
            build_panel(str(bars), root, CFG)
        assert read_manifest(root).to_json() == before
        assert not [n for n in root.child("panel").list_files() if n.startswith("staging")]

    def test_error_in_a_task_is_plain(self, bars: Path, root: Storage) -> None:
        (bars / "stocks.parquet").write_bytes((bars / "2018.parquet").read_bytes()[:100])
        with pytest.raises(BarsError, match=r"^stocks.parquet cannot be read as parquet"):
            build_panel(str(bars), root, CFG)
        make_bars()[["code"]].to_parquet(bars / "stocks.parquet")
        with pytest.raises(BarsError, match=r"^stocks.parquet lacks the column\(s\) date, open"):
            build_panel(str(bars), root, CFG)
