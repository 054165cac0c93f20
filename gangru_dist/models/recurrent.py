"""GRU and LSTM that train faster than torch's on CPUs, on the same weights.

The recurrence and its gradient are written out in one autograd function. Assets go through in
chunks, all layers of a step together, so that a step's matrices stay in the cache. What the
gradient needs is kept for as many chunks as a fixed piece of memory holds, and computed again
for the others: memory does not grow with the number of assets. Whether a chunk is kept changes
no bit of the result. Measurements: docs/decisions/0014-recurrent-core.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any, ClassVar, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from gangru_dist.models.cells import Cell, Frame, GruCell, Kept, LstmCell

CHUNK = 256
"""Assets at a time, at most, so that a step's matrices stay in the cache."""
KEPT_BYTES = 640 * 2**20
"""Memory for what gradients need: 3,200 assets of a GRU of 2 x 128 and 40 days. The process keeps
it, as fresh pages at every step cost time; only pages once used count."""

_free: list[Tensor] = []
"""That memory while no graph holds it."""


def _shapes(
    cells: Sequence[Cell], shape: Sequence[int], *, whole: bool
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Of a tape's frames and gates; `shape` is (assets, steps, ...)."""
    layers, hidden, (assets, steps) = len(cells), cells[0].hidden, shape[:2]
    rows = sum(cell.inputs + 1 for cell in cells) + hidden
    frames, gates = (layers + steps, 1 + steps) if whole else (layers + 1, 1)
    return (frames, rows, assets), (layers, gates, cells[0].kept, hidden, assets)


def _size(cells: Sequence[Cell], shape: Sequence[int], *, whole: bool) -> int:
    """How many numbers a tape holds."""
    return sum(map(prod, _shapes(cells, shape, whole=whole)))


class _Layer:
    """One layer's views of a tape, made once: a view costs a microsecond, a step has 40."""

    def __init__(self, cell: Cell, number: int, frames: Tensor, gates: Tensor) -> None:
        self.cell, self.number = cell, number
        self.frames = Frame.views(cell, frames)
        self.gates = cell.views(gates)

    def frame(self, step: int) -> Frame:
        """What the layer reads at a step; its state is what the step before left."""
        return self.frames[(step + self.number) % len(self.frames)]

    def kept(self, step: int) -> Kept:
        """What a step leaves for its gradient; zero for step -1."""
        return self.gates[(step + 1) % len(self.gates)]

    def clear(self) -> None:
        """Before the first step."""
        for frame in self.frames:
            frame.from_1[0] = 1.0
        self.frame(0).state.zero_()
        self.kept(-1).all.zero_()


class _Tape:
    """States and gates of a chunk of assets: of all steps, or, `whole=False`, the newest.

    Frame t + l is what layer l reads at step t. Its rows are [x; 1; state 0; 1; state 1 ...]:
    the state of a layer is the input of the layer above, one frame later.
    """

    def __init__(
        self, cells: Sequence[Cell], shape: Sequence[int], memory: Tensor, *, whole: bool
    ) -> None:
        self.cells, self.steps, frames, gates = cells, shape[1], *_shapes(cells, shape, whole=whole)
        self.frames = memory[: prod(frames)].view(frames)
        self.gates = memory[prod(frames) : prod(frames) + prod(gates)].view(gates)
        self.layers, start = [], 0
        for layer, cell in enumerate(cells):
            self.layers.append(_Layer(cell, layer, self.frames[:, start:], self.gates[layer]))
            start += cell.inputs + 1

    def run(self, x: Float[Tensor, "M T F"], read: Callable[[int, Tensor], None]) -> None:
        """All steps; `read` is given each step's number and [1; state of the last layer]."""
        for layer in self.layers:
            layer.clear()
        for step in range(self.steps):
            self.frames[step % len(self.frames), : x.shape[2]] = x[:, step].t()
            for layer in self.layers:
                before, kept = layer.kept(step - 1), layer.kept(step)
                layer.cell.step(layer.frame(step), before, kept, layer.frame(step + 1).state)
            read(step, self.layers[-1].frame(step + 1).from_1)

    def back(self, seed: Callable[[int, Tensor, Tensor], None], d_x: Tensor | None) -> None:
        """All steps' gradients; `seed` adds the result's to that of the last layer's state."""
        for cell in self.cells:
            cell.start_chunk(self.frames.shape[2])
        for step in reversed(range(self.steps)):
            seed(step, self.layers[-1].frame(step + 1).from_1, self.cells[-1].d_state)
            for number, layer in reversed([*enumerate(self.layers)]):
                before, kept = layer.kept(step - 1), layer.kept(step)
                d_input = layer.cell.back(layer.frame(step), before, kept)
                if number:
                    self.cells[number - 1].d_state.addmm_(layer.cell.to_input, d_input)
                elif d_x is not None:
                    d_x[:, step] = torch.mm(layer.cell.to_input, d_input).t()


class _Newest:
    """The result is the last layer's state after the last step."""

    def __init__(self, steps: int) -> None:
        self.last = steps - 1

    def empty(self, x: Tensor, hidden: int) -> Tensor:
        """A place for the result."""
        return x.new_empty(len(x), hidden)

    def read(self, result: Tensor, step: int, top: Tensor) -> None:
        """Put a step's part, of [1; state], in its place."""
        if step == self.last:
            result.copy_(top[1:].t())

    def seed(self, d_result: Tensor, step: int, top: Tensor, d_state: Tensor) -> None:
        """Add what comes back from a step's part to `d_state`."""
        if step == self.last:
            d_state += d_result.t()

    def gradients(self) -> tuple[Tensor, ...]:
        """Of its own weights."""
        return ()


class _EveryStep(_Newest):
    """The result is a linear layer of the last layer's state, at each step."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        self.packed = torch.cat([bias[:, None], weight], dim=1)  # (O, 1 + H)
        self.sum = torch.zeros_like(self.packed)

    def empty(self, x: Tensor, hidden: int) -> Tensor:
        return x.new_empty(*x.shape[:2], len(self.packed))

    def read(self, result: Tensor, step: int, top: Tensor) -> None:
        result[:, step] = torch.mm(self.packed, top).t()

    def seed(self, d_result: Tensor, step: int, top: Tensor, d_state: Tensor) -> None:
        part = d_result[:, step].t().contiguous()  # (O, M)
        self.sum.addmm_(part, top.t())
        d_state.addmm_(self.packed[:, 1:].t(), part)

    def gradients(self) -> tuple[Tensor, ...]:
        return self.sum[:, 1:].contiguous(), self.sum[:, 0]


@dataclass(frozen=True)
class _Network:
    """Which cells and which result flat weights are of."""

    cell: type[Cell]
    layers: int

    def parts(self, steps: int, weights: Sequence[Tensor]) -> tuple[list[Cell], _Newest]:
        """Cells and result; what follows the cells' weights is a linear layer's."""
        end = 4 * self.layers
        cells = [self.cell(*weights[start : start + 4]) for start in range(0, end, 4)]
        return cells, _EveryStep(*weights[end:]) if weights[end:] else _Newest(steps)


def _chunks(cells: Sequence[Cell], x: Tensor) -> tuple[tuple[Tensor, ...], int]:
    """Shares of the assets, and how many numbers the tape of one holds."""
    asset = _size(cells, (1, x.shape[1]), whole=True)
    assets = max(1, min(CHUNK, KEPT_BYTES // (asset * x.itemsize)))
    return x.split(assets), asset * min(assets, max(1, len(x)))


def _memory(numbers: int, dtype: torch.dtype) -> Tensor:
    """`KEPT_BYTES` or as much as one chunk needs, from before if no graph holds it."""
    size = max(KEPT_BYTES, numbers * dtype.itemsize)
    with suppress(IndexError):
        memory = _free.pop()
        if len(memory) == size:
            return memory.view(dtype)
    return torch.empty(size, dtype=torch.uint8).view(dtype)


@torch.no_grad()
def _forward(
    network: _Network, x: Tensor, weights: Sequence[Tensor], kept: Tensor | None = None
) -> Tensor:
    """The result; the first chunks leave their tapes in `kept`, as many as it has room for."""
    cells, output = network.parts(x.shape[1], weights)
    result = output.empty(x, cells[-1].hidden)
    chunks, size = _chunks(cells, x)
    room = 0 if kept is None else len(kept) // size
    scratch = x.new_empty(_size(cells, chunks[0].shape, whole=False))
    for number, (chunk, part) in enumerate(zip(chunks, result.split(len(chunks[0])), strict=True)):
        whole = number < room
        memory = kept[number * size :] if kept is not None and whole else scratch
        tape = _Tape(cells, chunk.shape, memory, whole=whole)
        tape.run(chunk, partial(output.read, part))
    return result


def _backward(
    network: _Network,
    x: Tensor,
    weights: Sequence[Tensor],
    d_result: Tensor,
    d_x: Tensor | None,
    kept: Tensor | None,
) -> list[Tensor]:
    """Gradients of the weights; fills `d_x`. What is not in `kept` is computed again."""
    cells, output = network.parts(x.shape[1], weights)
    for cell in cells:
        cell.start_gradients()
    chunks, size = _chunks(cells, x)
    memory = _memory(size, x.dtype) if kept is None else kept
    room = 0 if kept is None else len(kept) // size
    for number, chunk in enumerate(chunks):
        known, share = number < room, slice(number * len(chunks[0]), None)
        tape = _Tape(cells, chunk.shape, memory[number * size if known else 0 :], whole=True)
        if not known:  # the first chunk's place is free by now
            tape.run(chunk, lambda step, top: None)
        part = d_result[share][: len(chunk)]
        tape.back(partial(output.seed, part), None if d_x is None else d_x[share][: len(chunk)])
    _free[:] = [memory.view(torch.uint8)]
    return [*(g for cell in cells for g in cell.gradients()), *output.gradients()]


class _Recurrence(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, network: _Network, x: Tensor, *weights: Tensor) -> Tensor:
        cells, _ = network.parts(x.shape[1], weights)
        ctx.network, ctx.kept = network, _memory(_chunks(cells, x)[1], x.dtype)
        ctx.save_for_backward(x, *weights)
        return _forward(network, x, weights, ctx.kept)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_result: Tensor) -> tuple[Tensor | None, ...]:
        x, *weights = ctx.saved_tensors
        d_x = torch.empty_like(x) if ctx.needs_input_grad[1] else None
        kept, ctx.kept = ctx.kept, None  # of a graph that is retained, all is computed again
        return None, d_x, *_backward(ctx.network, x, weights, d_result, d_x, kept)


class _Recurrent(nn.RNNBase):
    """What GRU and LSTM share.

    On GPUs, under autocast, and in any other dtype than float32 and float64, it is torch's own
    module that computes.
    """

    cell: ClassVar[type[Cell]]
    infers: ClassVar[bool]
    """Whether ours is the faster one without gradients too."""

    def newest(self, x: Float[Tensor, "B T F"]) -> Float[Tensor, "B H"]:
        """The last layer's state after the last step."""
        return cast(Tensor, self._run(x, (), lambda states: states[:, -1]))

    def every(self, x: Float[Tensor, "B T F"], layer: nn.Linear) -> Float[Tensor, "B T O"]:
        """`layer` of the last layer's state, at each step; the states are not stored."""
        return cast(Tensor, self._run(x, (layer.weight, layer.bias), layer))

    # dynamo traces no recurrence, but would go through ours step by step
    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _run(self, x: Tensor, output: Sequence[Tensor], read: Callable[[Tensor], Tensor]) -> Tensor:
        """`output` is for our own computation what `read` is for torch's."""
        weights = [*(weight for layer in self.all_weights for weight in layer), *output]
        tracked = torch.is_grad_enabled() and any(t.requires_grad for t in (x, *weights))
        if self._is_known(x) and tracked:
            return cast(
                Tensor, _Recurrence.apply(_Network(self.cell, self.num_layers), x, *weights)
            )
        if self._is_known(x) and self.infers:
            return _forward(_Network(self.cell, self.num_layers), x, weights)
        parts = (x,) if tracked or x.device.type != "cpu" else x.split(CHUNK)
        return torch.cat([read(self(part)[0]) for part in parts])

    def _is_known(self, x: Tensor) -> bool:
        """Whether ours can compute it."""
        return (
            x.device.type == "cpu"
            and x.dtype in (torch.float32, torch.float64)
            and x.dtype == self.weight_ih_l0.dtype
            and not torch.is_autocast_enabled("cpu")
        )


class GRU(_Recurrent, nn.GRU):
    """`nn.GRU(features, hidden, layers, batch_first=True)`, weight for weight."""

    cell, infers = GruCell, True

    def __init__(self, features: int, hidden: int, layers: int) -> None:
        nn.GRU.__init__(self, features, hidden, layers, batch_first=True)


class LSTM(_Recurrent, nn.LSTM):
    """`nn.LSTM(features, hidden, layers, batch_first=True)`, weight for weight.

    Without gradients torch's is faster: oneDNN has an LSTM, and torch calls it.
    """

    cell, infers = LstmCell, False

    def __init__(self, features: int, hidden: int, layers: int) -> None:
        nn.LSTM.__init__(self, features, hidden, layers, batch_first=True)
