"""The version of the rows: a number that must change with the rows, and what follows from it."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from gangru_dist.base.errors import PanelError
from gangru_dist.base.storage import Storage
from gangru_dist.cluster.map import map_here
from gangru_dist.config.settings import BarsConfig, PanelConfig, RunConfig
from gangru_dist.features.price_volume import FEATURES, NAMES, AdjustedBars, Feature
from gangru_dist.panel.build import build_panel
from gangru_dist.panel.manifest import ROWS_VERSION, Manifest, read_manifest
from tests.bars import vendors
from tests.bars.corpus_market import CODES, DAYS, market, put, scaled
from tests.made_bars import make_bars, write

CFG = RunConfig(panel=PanelConfig(features=("close", "volume", "daily_return"), buckets=2))
AFC845F = "fd1f26a2a1cefa25312bdbd0c9ef5c6537ac3738be973d0314097c3951c8c807"
"""`rows_code` of that commit, of all eighteen features."""

_FIRST = {
    "akshare": "3ee2e9528f37abd4e25bfd405e671780fa3455edba9a463835d979508fe9bb5e",
    "baostock": "7bb400bdbe52ed177d545bcc142fda110b47b5fc0d2f2ec65c175f56f2c12574",
    "members": "983413813bd5d9c6bc8d5e2db5534736a577a864d18e4835c5b7205fd91e2141",
    "qlib csv": "1cae88c08a2e230d1d03c57a45ce08150f997d025433bba75f02b48cd3d8ac78",
    "spoiled": "c2cea148c5eee6bb65fb40395978438c933658c16bdda01877fe0b20f748d3b6",
    "tushare": "616bab39ea32cef593d4b400f5673acf44cc6813eab1e98e3a934a95052161ae",
    "whole": "9ce1d506e55afef7d0dfa260ce1f4c5c790181a0e8163ca251b0819d1adc2e9a",
}
_BEYOND = "3659d9aab348b799d07ddf191a145416c9f30917bdde457bad14e396d98c2e5d"
"""Without closes beyond a limit that is computed from the wrong day."""
GOLDEN = {1: _FIRST, 2: _FIRST, 3: {**_FIRST, "spoiled": _BEYOND}}
"""Version of the rows -> market -> fingerprint of its panel."""


def spoiled() -> pd.DataFrame:
    """Bars of which the rules set rows aside: identities, jumps, thin days, lost dates."""
    frame = make_bars(assets=9).assign(turnover_rate=lambda bars: bars["volume"] / 5e5)
    frame = pd.concat([frame, frame.iloc[[40, 200]]], ignore_index=True)  # identical rows
    rows = np.random.default_rng(3).choice(len(frame), 12, replace=False)
    changes: list[tuple[str, Any]] = [
        ("close", -1.0), ("high", 0.01), ("amount", np.inf), ("volume", -5.0), ("is_st", None),
        ("turnover_rate", np.nan), ("market_cap", -1.0), ("adj_factor", 0.0), ("amount", 1e3),
        ("industry", None), ("turnover_rate", 50.0), ("open", np.nan),
    ]  # fmt: skip
    frame["is_st"] = frame["is_st"].astype(object)
    for row, (column, value) in zip(rows, changes, strict=True):
        frame.loc[row, column] = value
    weekend = frame[frame["date"] == "2019-02-15"].assign(date=pd.Timestamp("2019-02-16"))
    return pd.concat([frame, weekend], ignore_index=True)


def leaving() -> pd.DataFrame:
    """Bars with a price and a factor that leave their neighbours."""
    spike = scaled(lambda bars: (bars["code"] == CODES[2]) & (bars["date"] == DAYS[20]),
                   ["adj_factor"], 10.0)  # fmt: skip
    return spike(put("close", 99.0)(market()))


def fingerprints(folder: Path) -> Iterator[tuple[str, str]]:
    """Market -> fingerprint, with all eighteen features as far as the columns go."""
    bars = BarsConfig(price_limits="ashare", max_quarantined=0.05)
    cfg = RunConfig(bars=bars, panel=PanelConfig(buckets=3))
    lists = folder / "members.csv"
    lists.write_text("date,code\n2019-02-01,600001.SH\n2019-03-01,600002.SH\n")
    members = replace(cfg, panel=PanelConfig(buckets=3, members=str(lists)))
    made = {"whole": (market(), cfg), "spoiled": (spoiled(), cfg), "members": (leaving(), members)}
    for name, (frame, settings) in made.items():
        write(folder / name, frame, [pd.Timestamp("2019-02-20")])
        yield name, fingerprint(folder / name, settings)
    for name in GOLDEN[1].keys() - made.keys():
        vendor = vendors.VENDORS[name]
        vendor.write(folder / name, vendors.make_market())
        own = RunConfig(
            bars=BarsConfig(format=vendor.format),  # type: ignore[arg-type]
            panel=PanelConfig(features=tuple(n for n in NAMES if n != "turnover_rate")),
        )
        yield name, fingerprint(folder / name, own)


def fingerprint(bars: Path, cfg: RunConfig) -> str:
    root = Storage(f"{bars}-storage")
    return build_panel(str(bars), root, cfg, runner=map_here).fingerprint


def test_rows_change_with_their_version_only(tmp_path: Path) -> None:
    assert dict(fingerprints(tmp_path)) == GOLDEN[ROWS_VERSION], (
        "the same bars give other rows. If that is intended, raise ROWS_VERSION in "
        "panel/manifest.py and add the new fingerprints here."
    )


@pytest.fixture
def root(tmp_path: Path) -> Storage:
    return Storage(str(tmp_path / "storage"))


@pytest.fixture
def bars(tmp_path: Path) -> Path:
    write(tmp_path / "bars", make_bars())
    return tmp_path / "bars"


def build(root: Storage, bars: Path, cfg: RunConfig = CFG) -> Manifest:
    return build_panel(str(bars), root, cfg, runner=map_here)


def rewrite(bars: Path) -> None:
    frame = make_bars()
    frame.loc[frame["date"] == "2019-01-15", "volume"] += 100
    write(bars, frame)


def make_old(root: Storage, **source: Any) -> None:
    """The panel as an earlier version left it, whose source said other things of its code."""
    manifest = root.child("panel").read_json("manifest.json")
    for name in ("rows_version", "users_code"):
        del manifest["source"][name]
    manifest["source"] |= source
    del manifest["checksum"]
    root.child("panel").write_json("manifest.json", manifest)


class TestVersion:
    def test_other_text_of_our_code_does_not_open_history(
        self, root: Storage, bars: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A changed message in bars/quality.py let the next build rewrite a year."""
        real = inspect.getsource
        build(root, bars)
        rewrite(bars)
        monkeypatch.setattr(inspect, "getsource", lambda item: f"{real(item)}\nx = 'another'\n")
        with pytest.raises(PanelError, match=r"rewrite history: .* in 2019-01 \d row") as refused:
            build(root, bars)
        assert "earlier version" not in str(refused.value)

    def test_another_version_builds_again_and_may_change_rows(
        self, root: Storage, bars: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = build(root, bars)
        monkeypatch.setattr("gangru_dist.panel.build.ROWS_VERSION", ROWS_VERSION + 1)
        again = build(root, bars)
        assert again.source == {**first.source, "rows_version": ROWS_VERSION + 1}
        assert (again.fingerprint, again.rewritten) == (first.fingerprint, {})
        rewrite(bars)
        monkeypatch.setattr("gangru_dist.panel.build.ROWS_VERSION", ROWS_VERSION + 2)
        assert list(build(root, bars).rewritten) == ["2019-01"]

    def test_a_users_feature_counts_by_its_source(
        self, root: Storage, bars: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def twice(bars: AdjustedBars) -> np.ndarray:
            return bars.close * 2

        def added(bars: AdjustedBars) -> np.ndarray:
            return bars.close + bars.close

        monkeypatch.setitem(FEATURES, "own", Feature(compute=twice, inputs=("close",)))
        cfg = RunConfig(panel=PanelConfig(features=("close", "own"), buckets=2))
        first = build(root, bars, cfg)
        monkeypatch.setitem(FEATURES, "own", Feature(compute=added, inputs=("close",)))
        again = build(root, bars, cfg)
        assert [list(one.source["users_code"]) for one in (first, again)] == [["feature own"]] * 2
        assert again.source["users_code"] != first.source["users_code"]
        assert again.fingerprint == first.fingerprint


class TestEarlierVersions:
    def test_the_panel_of_afc845f_is_of_version_1(
        self, root: Storage, bars: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("gangru_dist.panel.build.ROWS_VERSION", 1)
        first = build(root, bars)
        make_old(root, rows_code=AFC845F)
        before = root.child("panel").read_bytes("manifest.json")
        assert read_manifest(root).source == first.source
        assert build(root, bars).to_json() == first.to_json()
        assert root.child("panel").read_bytes("manifest.json") == before  # kept, not built again

    @pytest.mark.parametrize(
        "source", [{}, {"features_code": "0" * 64}, {"rows_code": "0" * 64}], ids=str
    )
    def test_one_of_unknown_code_is_compared_once(
        self, root: Storage, bars: Path, caplog: pytest.LogCaptureFixture, source: dict[str, str]
    ) -> None:
        first = build(root, bars)
        make_old(root, **source)
        logging.getLogger("gangru_dist").propagate = True
        with caplog.at_level(logging.INFO, logger="gangru_dist"):
            again = build(root, bars)
            assert "panel_code_unknown" in caplog.text
            caplog.clear()
            assert build(root, bars).to_json() == again.to_json()
            assert "panel_kept" in caplog.text
        assert again.to_json() == first.to_json()

    def test_one_of_unknown_code_is_guarded(self, root: Storage, bars: Path) -> None:
        build(root, bars)
        make_old(root, rows_code="0" * 64)
        before = read_manifest(root).to_json()
        rewrite(bars)
        with pytest.raises(
            PanelError, match=r"rewrite history: .* An earlier version .*--overwrite"
        ):
            build(root, bars)
        assert read_manifest(root).to_json() == before
