"""The benchmark runs, and both of its sides do the same work."""

import re
import sys
from pathlib import Path

import pytest

from benchmarks import demo, memory
from benchmarks.training_speed import Size, Training, compare, main
from gangru_dist.config.settings import GruConfig

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


class TestDemo:
    """A job that sleeps, in place of the demo."""

    @pytest.fixture
    def checkout(self, tmp_path: Path) -> Path:
        place = tmp_path / "checkout"
        for name in ("gangru_dist", "jobs", ".venv/bin"):
            (place / name).mkdir(parents=True)
        (place / ".venv/bin/python").symlink_to(sys.executable)
        (place / "jobs/pipeline.py").write_text(
            "import sys, time\n"
            "time.sleep(0.2); print('epoch_done', flush=True); time.sleep(0.8)\n"
            "sys.exit(0 if '--storage' in sys.argv else 'no storage')\n"
        )
        return place

    @pytest.mark.parametrize("cold", [False, True])
    def test_sides_take_turns(
        self, checkout: Path, cold: bool, capsys: pytest.CaptureFixture[str]
    ) -> None:
        found = demo.measure({"new": checkout, "old": checkout}, 2, cold=cold)
        order = re.findall(r"round \d (\w+)", capsys.readouterr().out)
        assert order == ["new", "old", "old", "new"]
        for took in [*found["new"], *found["old"]]:
            assert 0.2 <= took.first_epoch <= took.whole - 0.3  # half a second for a busy machine

    def test_a_demo_that_fails_is_no_figure(self, checkout: Path, tmp_path: Path) -> None:
        (checkout / "jobs/pipeline.py").write_text("raise SystemExit('no room')")
        with pytest.raises(RuntimeError, match="no room"):
            demo.demo(checkout, tmp_path)


@pytest.mark.slow
@pytest.mark.trials
def test_memory_grows_with_the_shard(capsys: pytest.CaptureFixture[str]) -> None:
    ratio = memory.longer(memory.Size(assets=400, days=(300, 5400), hidden=8, buckets=32))
    assert 0.8 < ratio <= memory.LIMIT + 0.2  # the allocator's share of so small a shard
    assert "growth of the peak" in capsys.readouterr().out
