"""--check: the same counts as a build, and nothing written."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from gangru_dist.base.errors import BarsError
from gangru_dist.base.storage import Storage
from gangru_dist.cluster.map import map_here
from gangru_dist.config.settings import BarsConfig, PanelConfig, RunConfig
from gangru_dist.panel.build import build_panel, check_panel
from tests.bars.corpus_market import market, put, scaled
from tests.made_bars import write

CFG = RunConfig(bars=BarsConfig(price_limits="ashare"), panel=PanelConfig(buckets=3))


def spoiled() -> pd.DataFrame:
    """One bad price, one factor that spikes."""
    frame = put("close", -1.0)(market())
    spike = (frame["code"] == "600002.SH") & (frame["date"] == "2019-02-04")
    return scaled(lambda _: spike, ["adj_factor"], 10.0)(frame)


def test_counts_are_those_of_a_build(tmp_path: Path) -> None:
    write(tmp_path / "bars", spoiled())
    lines, problem = check_panel(str(tmp_path / "bars"), CFG)
    root = Storage(str(tmp_path / "storage"))
    build_panel(str(tmp_path / "bars"), root, CFG, runner=map_here)
    quality = root.child("panel").read_json("quality.json")
    assert problem is None
    assert len(quality["quarantined"]) == 2
    text = "\n".join(lines)
    for reason, finding in quality["quarantined"].items():
        assert f"{finding['rows']:>10}  {reason}, e.g. file=0.parquet" in text
    facts = dict(line.rsplit(None, 1) for line in lines[:7])
    assert facts == {
        "rows read": "960", "rows suspended": "0", "rows set aside": "2", "stocks": "12",
        "trading days": "80", "first day": "2019-01-07", "last day": "2019-04-26",
    }  # fmt: skip


def test_what_would_stop_the_build_is_told_after_the_table(tmp_path: Path) -> None:
    write(tmp_path / "bars", market().assign(volume=lambda f: f["volume"] / 100))
    lines, problem = check_panel(str(tmp_path / "bars"), CFG)
    assert "--set bars.scales.volume=100" in str(problem)
    assert "files in another unit" in lines
    write(tmp_path / "bars", market().assign(adj_factor=1.0))
    _, problem = check_panel(str(tmp_path / "bars"), CFG)
    assert "near a split's ratio" in str(problem)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(BarsError, match="no files at"):
        check_panel(str(tmp_path), CFG)
