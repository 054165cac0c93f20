"""Tensors that every epoch needs again, made once and kept in a scratch file.

A file rather than memory: the operating system keeps it in its page cache as long as there is
room, and a worker's own memory stays that of its panel. What is read back is what was
written, bit for bit.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import weakref
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

_logger = logging.getLogger(__name__)
_SPARE = 0.1
"""Share of the disk that is never filled; of a large disk `_SPARE_BYTES`."""
_SPARE_BYTES = 5e9


class Scratch:
    """A budget of bytes in temporary files, shared by what one worker keeps."""

    def __init__(self, budget: float, folder: str | None = None) -> None:
        """`budget`: bytes; `folder`: None = the system's folder for temporary files."""
        self.folder = folder
        disk = shutil.disk_usage(folder or tempfile.gettempdir())
        room = disk.free - min(_SPARE * disk.total, _SPARE_BYTES)
        self.left = max(0.0, min(budget, room))

    def take(self, size: int) -> bool:
        """Reserve `size` bytes; False if the budget has no room for them."""
        if size > self.left:
            return False
        self.left -= size
        return True


class Kept:
    """Results of a function of a key, each made once; made anew where they do not fit.

    Only for tensors on the CPU: others are made anew each time.
    """

    def __init__(self, make: Callable[[int], Tensor], scratch: Scratch) -> None:
        self._make, self._scratch = make, scratch
        self._places: dict[int, tuple[int, torch.Size, torch.dtype]] = {}
        self._file = _File(scratch)
        self._is_full = False
        weakref.finalize(self, self._file.close)

    def __call__(self, key: int) -> Tensor:
        """The result for `key`; the caller may change it."""
        if key in self._places:
            return self._read(*self._places[key])
        value = self._make(key)
        self.put(key, value)
        return value

    def put(self, key: int, value: Tensor) -> None:
        """Keep a result that was made elsewhere, if there is room."""
        if value.device.type != "cpu" or key in self._places or self._is_full:
            return
        data = value.detach().contiguous()
        size = data.numel() * data.element_size()
        if not self._scratch.take(size):
            self._is_full = True
            kept = self._file.size / 1e6
            _logger.info("scratch_full kept_mb=%.0f: the rest is computed anew", kept)
            return
        try:
            self._file.write(data)
        except OSError as error:  # a full disk costs time, no result
            self._is_full = True
            self._scratch.left += size
            _logger.warning("scratch_failed %s: the rest is computed anew", error)
            return
        self._places[key] = (self._file.size, data.shape, data.dtype)
        self._file.size += size

    def _read(self, start: int, shape: torch.Size, dtype: torch.dtype) -> Tensor:
        result = torch.empty(shape, dtype=dtype)
        self._file.read(result, start)
        return result

    def close(self) -> None:
        """Release the space; done too when nobody holds this any more."""
        self._file.close()
        self._places.clear()


class _File:
    """An unnamed file, which is removed when it is closed or this process ends."""

    def __init__(self, scratch: Scratch) -> None:
        self._scratch = scratch
        self._descriptor: int | None = None
        self.size = 0
        """Bytes taken of the budget; the next are written behind them."""

    def write(self, data: Tensor) -> None:
        view, place = _bytes(data), self.size
        while len(view):
            done = os.pwrite(self._open(), view, place)
            view, place = view[done:], place + done

    def read(self, into: Tensor, start: int) -> None:
        view = _bytes(into)
        while len(view):
            done = os.preadv(self._open(), [view], start)
            if not done:
                raise OSError("the scratch file is shorter than what was written to it")
            view, start = view[done:], start + done

    def _open(self) -> int:
        if self._descriptor is None:
            self._descriptor, name = tempfile.mkstemp(prefix="gangru-", dir=self._scratch.folder)
            Path(name).unlink()
        return self._descriptor

    def close(self) -> None:
        """Give the space back, to the disk and to the budget."""
        if self._descriptor is not None:
            os.close(self._descriptor)
        self._scratch.left += self.size
        self._descriptor, self.size = None, 0


def _bytes(tensor: Tensor) -> memoryview:
    """The memory of a contiguous tensor."""
    flat = tensor.numpy().reshape(-1).data
    return memoryview(flat).cast("B") if tensor.numel() else memoryview(b"")
