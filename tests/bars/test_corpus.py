"""Every malformed or ambiguous input comes to what the corpus says, and docs/data.md says the same.

No input may end in a traceback, hang, or pass in silence: an outcome is an error with the right
words, rows counted under the right reason, a note, or the very panel that was meant.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from gangru_dist.base.errors import GangruError
from gangru_dist.base.storage import Storage
from gangru_dist.cluster.map import map_here
from gangru_dist.config.settings import BarsConfig, PanelConfig, RunConfig
from gangru_dist.config.sources import load
from gangru_dist.panel.build import build_panel
from gangru_dist.panel.manifest import Manifest
from tests.bars.corpus import CASES, documented, table
from tests.bars.corpus_case import Case
from tests.bars.corpus_market import market, one_file
from tests.panel.test_headers import ways_out

ALL = [pytest.param(case, id=case.wrong) for cases in CASES.values() for case in cases]
_OF_MARKET = {"list_date", "adj_factor"}  # lacking on purpose, or refused
FEATURES = ("close", "turnover_rate", "daily_return")


@pytest.fixture(scope="module")
def meant(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Fingerprint of the market as it is."""
    case = Case(wrong="", make=lambda: one_file(market()), outcome="same panel")
    return build(case, tmp_path_factory.mktemp("meant"))[0].fingerprint


def build(case: Case, folder: Path) -> tuple[Manifest, dict[str, Any]]:
    """Write the case's files, build the panel from them; its quality.json beside."""
    bars = folder / "bars"
    bars.mkdir()
    for name, data in case.make().items():
        (bars / name).parent.mkdir(parents=True, exist_ok=True)
        (bars / name).write_bytes(data)
    given = {"price_limits": "ashare", **case.settings}
    if "calendar" in given:
        given["calendar"] = str(bars / given["calendar"])
    cfg = RunConfig(
        bars=dataclasses.replace(BarsConfig(), **given),
        panel=PanelConfig(features=FEATURES, buckets=1),
    )
    root = Storage(str(folder / "storage"))
    manifest = build_panel(str(bars), root, cfg, runner=map_here)
    return manifest, root.child("panel").read_json("quality.json")


@pytest.mark.parametrize("case", ALL)
def test_outcome(case: Case, tmp_path: Path, meant: str) -> None:
    if case.outcome == "refused":
        with pytest.raises(GangruError) as caught:
            build(case, tmp_path)
        assert case.words in str(caught.value)
        load("default", None, ways_out(str(caught.value)))  # what it tells to paste are settings
        return
    manifest, quality = build(case, tmp_path)
    if case.outcome == "set aside":
        assert case.words in quality["quarantined"], quality["quarantined"]
        assert quality["quarantined"][case.words]["example"]["date"]
        return
    assert not quality["quarantined"]
    notes = {*quality["notes"], *quality["optional_columns_missing"]} - _OF_MARKET
    if case.outcome == "noted":
        assert case.words in notes, notes
        return
    assert not notes
    if case.outcome == "same panel":
        assert manifest.fingerprint == meant


@pytest.mark.parametrize("case", [case for case in ALL if "--set" in case.values[0].words])
def test_the_setting_that_is_told_mends(case: Case, tmp_path: Path) -> None:
    """All rows are read as those of the market that was meant."""
    told = load("default", None, ways_out(case.words)).bars
    given = {"scales": told.scales, "columns": told.columns}
    mended = dataclasses.replace(case, settings={**case.settings, **given})
    manifest, quality = build(mended, tmp_path)
    assert manifest.rows == len(market())
    assert not quality["quarantined"]


def test_there_are_enough() -> None:
    assert len(ALL) >= 300
    assert len({case.wrong for cases in CASES.values() for case in cases}) == len(ALL)


def test_the_documented_table_is_the_corpus() -> None:
    assert documented() == table(), "run: python -m tests.bars.corpus write"
