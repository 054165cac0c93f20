import datetime as dt
import json
from pathlib import Path

import pytest

from gangru_dist.base.storage import Storage
from gangru_dist.config.settings import (
    FactorConfig,
    GruConfig,
    PanelConfig,
    RunConfig,
    SyntheticConfig,
    TrainingConfig,
    WindowConfig,
)
from gangru_dist.runs.run import Run

TINY = RunConfig(
    variant="gru",
    panel=PanelConfig(buckets=2),
    windows=WindowConfig(history_days=120),
    gru=GruConfig(hidden=4, layers=1, head=(4,)),
    training=TrainingConfig(epochs=2, patience=2, learning_rate=1e-2),
    factor=FactorConfig(quantiles=4),
    synthetic=SyntheticConfig(assets=40, first=dt.date(2018, 1, 2), last=dt.date(2019, 3, 29)),
)
"""One refit day (2018-12-31), three month-ends to judge."""


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
class TestProperties:
    def test_all_stages_twice_give_the_same(self, tmp_path: Path) -> None:
        from gangru_dist.api import SYNTHETIC, run_pipeline

        root = Storage(str(tmp_path))
        first = run_pipeline(Run(root, "tiny", TINY), bars=SYNTHETIC)
        assert first.ok
        assert Path(first.report).stat().st_size > 10_000
        progress = (tmp_path / "runs/tiny/progress.html").read_text()
        for words in ("<b>Done</b>", "reading bars", "computing features", "2018-12-31", "scoring"):
            assert words in progress
        models = self.contents(tmp_path, "runs/tiny/windows")
        metrics = json.loads((tmp_path / "runs/tiny/report/metrics.json").read_text())
        assert len([name for name in models if name.endswith("model.json")]) == 1

        again = run_pipeline(Run(root, "tiny", TINY), bars=SYNTHETIC)
        assert again == first
        assert self.contents(tmp_path, "runs/tiny/windows") == models
        assert json.loads((tmp_path / "runs/tiny/report/metrics.json").read_text()) == metrics

    @staticmethod
    def contents(root: Path, folder: str) -> dict[str, tuple[int, bytes]]:
        """Name -> time of writing and content, of every file."""
        files = [path for path in (root / folder).rglob("*") if path.is_file()]
        return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}
