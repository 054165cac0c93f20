"""A storage made by commit cf4f81d is read as it is, and nothing in it is computed again.

`storage-cf4f81d.tar.xz` holds panel, models, factor table and metrics of a run over 30 synthetic
assets, two seeds and one window: `jobs/pipeline.py --preset demo --bars synthetic --run old` with
small networks.
"""

import json
import tarfile
from pathlib import Path

import pandas as pd
import pytest

from gangru_dist import read_factor
from gangru_dist.api import SYNTHETIC, build_panel
from gangru_dist.base.storage import Storage
from gangru_dist.cluster.map import map_here
from gangru_dist.config.settings import RunConfig
from gangru_dist.panel.manifest import read_manifest
from gangru_dist.report import document
from gangru_dist.runs.run import Run
from gangru_dist.scoring.score import score_days
from gangru_dist.training.launch import train_windows

ARCHIVE = Path(__file__).with_name("storage-cf4f81d.tar.xz")


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return extracted(tmp_path / "now")


def extracted(folder: Path) -> Run:
    with tarfile.open(ARCHIVE) as archive:
        if hasattr(tarfile, "data_filter"):  # Python 3.11.4; Debian 12 has 3.11.2
            archive.extraction_filter = tarfile.data_filter
        archive.extractall(folder)
    root = Storage(str(folder))
    claim = Run(root, "old", RunConfig()).read_claim()
    assert claim is not None
    cfg = claim.parse_settings()
    assert cfg is not None
    return Run(root, "old", cfg)


def nothing_to_train(run: Run) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a finished model is trained again")

    assert {one.status for one in train_windows(run, runner=refuse).windows} == {"finished before"}


def test_models_and_scores_are_up_to_date(run: Run) -> None:
    nothing_to_train(run)
    summary = score_days(run, runner=map_here)
    assert (summary.scored, summary.up_to_date, summary.unscored) == (0, 65, ())


def test_scored_again_and_reported_it_gives_the_same(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To rounding: samples are standardized from contiguous memory since, and CPUs differ."""
    monkeypatch.setattr(document, "draw_figures", lambda *_: {})
    before = extracted(tmp_path / "before")
    first = read_manifest(run.root).calendar[0].item()
    assert score_days(run, start=first, runner=map_here).scored == 65
    document.write_report(run)
    old, new = (read_factor(one.root.uri, one.name) for one in (before, run))
    pd.testing.assert_frame_equal(old, new, rtol=0, atol=1e-4)
    figures = [json.loads(one.report.read_bytes("metrics.json")) for one in (before, run)]
    assert figures[1]["ic"]["mean"] == pytest.approx(figures[0]["ic"]["mean"], abs=1e-4)


def test_the_panel_is_built_again_once_and_keeps_its_models(run: Run) -> None:
    old = read_manifest(run.root)
    new = build_panel(run, SYNTHETIC)
    assert "rows_version" not in old.source
    assert "rows_version" in new.source
    assert new.fingerprint == old.fingerprint
    assert [file.rows_digest for file in new.files] == [file.rows_digest for file in old.files]
    nothing_to_train(run)
