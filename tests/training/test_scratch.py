"""What is kept in a scratch file comes back bit for bit, or is made anew."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from gangru_dist.config.sources import load
from gangru_dist.training.data import Scratch, TensorCache, open_scratch


@pytest.fixture(autouse=True)
def disk(monkeypatch: pytest.MonkeyPatch) -> Callable[[float, float], None]:
    """Sets the size of the disk and what is free, in GB; the real one may be full."""

    def has(total: float, free: float) -> None:
        usage = SimpleNamespace(total=total * 1e9, free=free * 1e9)
        monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)

    has(100, 50)
    return has


class _Maker:
    """Random tensors by key, and how often each was asked for."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        self.asked: list[int] = []
        self.dtype = dtype

    def __call__(self, key: int) -> Tensor:
        self.asked.append(key)
        return torch.randn(key, 3, 2, generator=torch.Generator().manual_seed(key)).to(self.dtype)


class TestReference:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_comes_back_bit_for_bit_and_is_made_once(self, dtype: torch.dtype) -> None:
        make = _Maker(dtype)
        cache = TensorCache(make, Scratch(1e6))
        first = [cache(key).clone() for key in (5, 0, 7)]
        again = [cache(key) for key in (7, 5, 0)]
        assert make.asked == [5, 0, 7]
        assert all(torch.equal(a, b) for a, b in zip([first[2], *first[:2]], again, strict=True))
        assert {x.dtype for x in again} == {dtype}

    def test_what_was_put_is_not_made(self) -> None:
        make = _Maker()
        cache = TensorCache(make, Scratch(1e6))
        cache.put(3, torch.ones(3, 3, 2))
        assert torch.equal(cache(3), torch.ones(3, 3, 2))
        assert make.asked == []


class TestProperties:
    def test_the_caller_may_change_what_it_got(self) -> None:
        cache = TensorCache(_Maker(), Scratch(1e6))
        before = cache(4).clone()
        cache(4).zero_()
        assert torch.equal(cache(4), before)

    def test_over_budget_is_made_anew(self) -> None:
        make = _Maker()
        cache = TensorCache(make, Scratch(5 * 6 * 4))
        for _ in range(2):
            assert [len(cache(key)) for key in (5, 1)] == [5, 1]
        assert make.asked == [5, 1, 1]

    def test_what_nobody_holds_gives_its_share_back(self) -> None:
        """The next seed of a window has the generator's output of its own."""
        scratch = Scratch(100)
        cache = TensorCache(_Maker(), scratch)
        cache(3)
        assert scratch.left < 100
        del cache
        assert scratch.left == 100

    def test_what_could_not_be_written_takes_no_share(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        def full(*_: object) -> int:
            raise OSError("No space left on device")

        monkeypatch.setattr(os, "pwrite", full)
        scratch = Scratch(100)
        TensorCache(_Maker(), scratch)(3)
        assert scratch.left == 100
        (record,) = caplog.records
        assert record.levelname == "WARNING"  # workers log nothing below
        assert record.getMessage().startswith("scratch_failed No space left on device")

    def test_two_share_a_budget_and_give_it_back(self) -> None:
        scratch = Scratch(100)
        one, two = TensorCache(_Maker(), scratch), TensorCache(_Maker(), scratch)
        one(3), two(3)
        assert scratch.left == 100 - 72
        one.close()
        assert scratch.left == 100
        assert torch.equal(one(3), _Maker()(3))

    @pytest.mark.parametrize(
        ("total", "free", "left"), [(20, 10, 8), (20, 3, 1), (20, 1, 0), (250, 9, 4), (250, 4, 0)]
    )
    def test_the_disk_is_not_filled(
        self, disk: Callable[[float, float], None], total: float, free: float, left: float
    ) -> None:
        disk(total, free)
        assert Scratch(8e9).left == pytest.approx(left * 1e9)

    def test_no_file_is_left(self, tmp_path: Path) -> None:
        cache = TensorCache(_Maker(), Scratch(1e6, str(tmp_path)))
        cache(3)
        assert list(tmp_path.iterdir()) == []

    def test_a_folder_that_cannot_be_written_costs_time_only(self, tmp_path: Path) -> None:
        folder = tmp_path / "gone"
        folder.mkdir()
        cache = TensorCache(make := _Maker(), Scratch(1e6, str(folder)))
        folder.rmdir()
        assert torch.equal(cache(3), cache(3))
        assert make.asked == [3, 3]


class TestDevice:
    """A device's budget, with tensors of the CPU: no GPU is asked for."""

    def test_the_device_then_anew(self) -> None:
        cache = TensorCache(make := _Maker(), scratch := Scratch(5 * 24, on_device=True))
        first = [cache(key).clone() for key in (5, 1)]
        again = [cache(key) for key in (5, 1)]
        assert make.asked == [5, 1, 1]
        assert all(map(torch.equal, first, again))
        assert scratch.left == 0
        cache.close()
        assert scratch.left == 5 * 24

    def test_what_was_put_and_what_is_got_may_be_changed(self) -> None:
        cache = TensorCache(_Maker(), Scratch(3 * 24, on_device=True))
        cache.put(3, given := torch.ones(3, 3, 2))
        given.zero_()
        cache(3).zero_()
        assert torch.equal(cache(3), torch.ones(3, 3, 2))

    def test_no_file_is_made(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "pwrite", None)
        monkeypatch.setattr(shutil, "disk_usage", None)
        TensorCache(_Maker(), Scratch(100, on_device=True))(3)

    def test_a_device_without_room_costs_time_only(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        def full(_: Tensor) -> Tensor:
            raise torch.OutOfMemoryError("CUDA out of memory")

        monkeypatch.setattr(Tensor, "clone", full)
        cache = TensorCache(make := _Maker(), scratch := Scratch(100, on_device=True))
        assert torch.equal(cache(3), cache(3))
        assert make.asked == [3, 3]
        assert scratch.left == 100
        assert caplog.messages == ["scratch_failed CUDA out of memory: the rest is computed anew"]

    @pytest.mark.parametrize(
        ("settings", "left"),
        [
            ([], 40e9),
            (["resources.gpus_per_worker=0.25"], 10e9),
            (["resources.gpus_per_worker=2"], 40e9),
            (["resources.scratch_gb=0"], 0),
        ],
    )
    def test_half_of_its_share_of_what_is_free(
        self, settings: list[str], left: float, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (int(80e9), int(141e9)))
        assert open_scratch(load("demo", None, settings), torch.device("cuda")).left == left
