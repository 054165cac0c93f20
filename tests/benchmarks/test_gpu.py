"""The device's benchmark on the CPU, where it differs from itself by nothing."""

import re
import subprocess
import sys

import pytest
import torch

from benchmarks import gpu
from benchmarks.training_speed import Size
from gangru_dist.config.settings import GruConfig
from gangru_dist.models.precision import Device

TINY = Size(assets=30, train_days=2, valid_days=1, gru=GruConfig(hidden=4, layers=1, head=(3,)))


def test_prints_every_figure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu, "describe_device", lambda _: Device(name="CPU old"))
    monkeypatch.setattr(gpu, "EPOCHS", 2)
    before = torch.get_num_threads(), torch.backends.cudnn.allow_tf32
    gpu.main(TINY, "cpu", TINY)
    torch.set_num_threads(before[0])
    torch.backends.cudnn.allow_tf32 = before[1]
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 6
    assert re.search(r"^float32 +ours [\d,]+ +bare [\d,]+ samples/s +ratio \d", lines[1])
    assert re.search(r"^float32 +GAN [\d,]+ +its predictor [\d,]+ samples/s$", lines[2])
    same = "weights 0.0e+00 of the largest, scores 0.0e+00 standard deviations; resumed against "
    assert lines[3].endswith(f"in float32: {same}undisturbed: weights 0.0e+00")
    assert all("left out: training.precision" in line for line in lines[4:])


@pytest.mark.slow
def test_needs_few_packages() -> None:
    """A machine with a GPU may have nothing but what training itself needs."""
    refuse = "import sys; sys.modules.update(dict.fromkeys(sys.argv[1].split(', ')))"
    others = "deltalake, fsspec, matplotlib, optuna, psutil, ray, rich, scipy, tensorboardX"
    code = f"{refuse}; import benchmarks.gpu"
    subprocess.run([sys.executable, "-c", code, others], check=True, timeout=60)
