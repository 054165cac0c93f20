"""The scoring benchmark runs, and both of its sides score the same cross-sections."""

import re
from pathlib import Path

from benchmarks import scoring_speed
from gangru_dist.base.storage import Storage
from gangru_dist.config.settings import GruConfig
from gangru_dist.panel.shared import SharedPanel
from gangru_dist.runs.run import Run
from gangru_dist.scoring.predictor import Scorer


def test_scoring_does_the_same_work_on_both_sides(tmp_path: Path) -> None:
    size = scoring_speed.Size(
        assets=40, days=290, months=1, rounds=1, gru=GruConfig(hidden=4, layers=1, head=(3,))
    )
    root = Storage(str(tmp_path))
    cfg, manifest = scoring_speed.build(root, size, size.assets)
    (task,) = scoring_speed.list_tasks(root, cfg, manifest, 1)
    samples = scoring_speed.cross_sections(root, cfg, manifest, task)
    scorer = Scorer(Run(root, "bench", cfg), SharedPanel(root=root, manifest=manifest))
    assert scorer(task).rows == sum(map(len, samples)) > 0
    line = scoring_speed.forward_line(root, cfg, manifest, size)
    assert re.search(r"ratio \d+\.\d\d \(", line)
