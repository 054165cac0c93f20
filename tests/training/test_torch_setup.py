"""What a process that trains or scores sets once."""

from collections.abc import Iterator

import pytest
import torch

from gangru_dist.config.sources import load
from gangru_dist.models.precision import choose_device, prepare_torch


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    cudnn = torch.backends.cudnn.allow_tf32
    yield
    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision(precision)
    torch.backends.cudnn.allow_tf32 = cudnn


@pytest.mark.parametrize(
    ("precision", "products"), [("tf32", "high"), ("float32", "highest"), ("bf16", "highest")]
)
def test_tf32_is_what_matrix_products_may_be_rounded_to(precision: str, products: str) -> None:
    torch.set_float32_matmul_precision("medium")  # of a trial before, in the same process
    given = [f"training.precision={precision}", "resources.threads_per_worker=1"]
    prepare_torch(cfg := load("demo", None, given))
    assert torch.get_float32_matmul_precision() == products
    assert torch.backends.cudnn.allow_tf32 is (precision == "tf32")
    assert torch.get_num_threads() == 1
    prepare_torch(cfg, scoring=True)
    assert torch.get_float32_matmul_precision() == "highest"
    assert torch.backends.cudnn.allow_tf32 is False


@pytest.mark.parametrize(
    ("asked", "seen", "device"), [(0, True, "cpu"), (0.25, True, "cuda"), (0.25, False, "cpu")]
)
def test_a_promised_gpu_that_torch_does_not_see(
    asked: float, seen: bool, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: seen)
    cfg = load("demo", None, [f"resources.gpus_per_worker={asked}"])
    assert choose_device(cfg).type == device
