"""The benchmark runs, and both of its sides do the same work."""

import re

import pytest

from benchmarks import memory
from benchmarks.training_speed import Size, Training, compare, main
from gangru_dist.config import GruConfig

TINY = Size(
    assets=30,
    train_days=3,
    valid_days=2,
    rounds=2,
    gru=GruConfig(hidden=4, layers=2, head=(3,)),
    stored_assets=40,
    stored_days=10,
    buckets=4,
)


class TestReference:
    def test_the_bare_loop_trains_what_we_train(self) -> None:
        job = Training(TINY)
        assert job.ours() == pytest.approx(job.bare(), rel=1e-4)

    def test_ratio_is_of_speeds(self) -> None:
        assert compare([2.0, 4.0, 1.0], [1.0, 1.0, 1.0]) == "0.50 (0.25..1.00)"


def test_prints_both_ratios(capsys: pytest.CaptureFixture[str]) -> None:
    main(TINY)
    printed = capsys.readouterr().out
    assert len(re.findall(r"ratio.* \d+\.\d\d \(\d+\.\d\d\.\.\d+\.\d\d\)", printed)) == 2


@pytest.mark.slow
def test_memory_grows_with_the_shard(capsys: pytest.CaptureFixture[str]) -> None:
    ratio = memory.main(memory.Size(assets=400, days=(300, 5400), hidden=8, buckets=32))
    assert 0.8 < ratio <= memory.LIMIT
    assert "growth of the peak" in capsys.readouterr().out
