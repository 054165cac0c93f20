"""A GRU that trains faster than torch's on CPUs, and torch's LSTM in chunks.

Both have torch's weights.

The GRU's recurrence and its gradient are written out in one autograd function. Assets go through
in chunks, all layers of a step together, so that a step's matrices stay in the cache. What the
gradient needs is stored for as many chunks as a fixed piece of memory holds, and computed again
for the others: memory does not grow with the number of assets. Whether a chunk is stored changes
no bit of the result. Measurements: docs/decisions/0014-recurrent-core.md.

A layer reads a frame of the rows [inputs; 1; state]: one matrix product covers weights and biases,
and each gate is a contiguous block of rows. tanh(x) is computed as 2 sigmoid(2x) - 1, because
torch's tanh takes 4 to 6 times as long as its sigmoid. Equations and the order of gates are
torch's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from math import prod
from typing import Any, NamedTuple, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

CHUNK = 512
"""Assets at a time, about: a step's matrices stay in the cache, and it costs Python little."""
TORCH_CHUNK = 256
"""The same for torch's own modules without gradients."""
STORED_BYTES = 640 * 2**20
"""Memory for what gradients need: 3,200 assets of a GRU of 2 x 128 and 40 days. The process keeps
it, as fresh pages at every step cost time; only pages once used count."""
_BLOCKS = 4
"""Of hidden rows that a step stores: the new gate's product with the state, reset, update, new."""

_free: list[Tensor] = []
"""That memory while no graph holds it."""

_sigmoid_gradient = torch.ops.aten.sigmoid_backward.grad_input
_tanh_gradient = torch.ops.aten.tanh_backward.grad_input


def run_in_chunks(
    function: Callable[..., Tensor], *inputs: Tensor, chunk: int, stored: int
) -> Tensor:
    """A function of each sample, `chunk` samples at a time.

    What the gradient needs is stored for the first `stored` samples, and computed again for others.
    """
    first = stored // chunk if torch.is_grad_enabled() else 1 + len(inputs[0])
    results = [
        function(*parts)
        if number < first
        else checkpoint(function, *parts, use_reentrant=False, preserve_rng_state=False)
        for number, parts in enumerate(zip(*(x.split(chunk) for x in inputs), strict=True))
    ]
    return torch.cat(cast("list[Tensor]", results))


class _Frame(NamedTuple):
    """Views of what a layer reads, rows x assets."""

    all: Tensor
    """[inputs; 1; state]"""
    inputs_1: Tensor
    """[inputs; 1]"""
    one_state: Tensor
    """[1; state]"""
    state: Tensor


class _Gates(NamedTuple):
    """Views of what a step stores for its gradient."""

    sigmoids: Tensor
    """Reset and update as rows, (2 H, M)."""
    blocks: tuple[Tensor, ...]
    """`_BLOCKS` x (H, M)."""


class _Cell:
    """A layer's weights, and in a backward pass the sums of their gradients.

    F inputs, H hidden, M assets.
    """

    def __init__(self, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor, b_hh: Tensor) -> None:
        self.inputs, self.hidden = w_ih.shape[1], w_hh.shape[1]
        self.weights = w_ih, w_hh
        new, b_ih, b_hh = 2 * self.hidden, b_ih[:, None], b_hh[:, None]
        both = torch.cat([w_ih, b_ih + b_hh, w_hh], dim=1)
        self.reset_update = both[:new].contiguous()
        self.new_of_input = 2.0 * torch.cat([w_ih[new:], b_ih[new:]], dim=1)
        self.new_of_state = torch.cat([b_hh[new:], w_hh[new:]], dim=1)
        self._minus_one = w_ih.new_tensor(-1.0)

    def frames(self, rows: Float[Tensor, "N rows M"]) -> list[_Frame]:
        """Views of the first rows of each frame."""
        one, end = self.inputs, self.inputs + 1 + self.hidden
        ranges = (0, end), (0, one + 1), (one, end), (one + 1, end)
        return list(map(_Frame, *(rows[:, start:stop].unbind() for start, stop in ranges)))

    def step(self, frame: _Frame, gates: _Gates, state: Tensor) -> None:
        """Fill `gates` and the next `state`."""
        of_state, reset, update, new = gates.blocks
        torch.mm(self.reset_update, frame.all, out=gates.sigmoids).sigmoid_()
        torch.mm(self.new_of_state, frame.one_state, out=of_state)
        torch.mm(self.new_of_input, frame.inputs_1, out=new)
        new.addcmul_(of_state, reset, value=2.0).sigmoid_()
        torch.add(self._minus_one, new, alpha=2.0, out=new)  # tanh
        torch.lerp(new, frame.state, update, out=state)

    def start_backward(self) -> None:
        """Prepare a backward pass."""
        w_ih, w_hh = self.weights
        self.to_input = w_ih.t().contiguous()
        self.to_state = w_hh.roll(self.hidden, 0).t().contiguous()  # new, reset, update
        self.input_sum = w_ih.new_zeros(self.inputs + 1, len(w_ih))
        self.state_sum = w_hh.new_zeros(1 + self.hidden, len(w_hh))

    def start_chunk(self, assets: int) -> None:
        """Prepare the newest step of some assets."""
        self.d_state, self._spare = self.to_state.new_zeros(2, self.hidden, assets)
        d_gates = self.to_state.new_zeros(_BLOCKS, self.hidden, assets)
        self._d_blocks, self._d_sigmoids = d_gates.unbind(), d_gates[1:3].flatten(0, 1)
        self._d_input, self._d_product = d_gates[1:].flatten(0, 1), d_gates[:3].flatten(0, 1)

    def step_back(self, frame: _Frame, gates: _Gates) -> Float[Tensor, "rows M"]:
        """Take `d_state` one step back and sum the weights' gradients.

        Returns:
            The gradient of the product with the inputs, valid until the next call.
        """
        of_state, reset, update, new = gates.blocks
        d_of_state, d_reset, d_update, d_new = self._d_blocks
        torch.mul(self.d_state, update, out=self._spare)
        torch.sub(self.d_state, self._spare, out=d_new)
        _tanh_gradient(d_new, new, grad_input=d_new)
        torch.mul(d_new, reset, out=d_of_state)
        torch.mul(d_new, of_state, out=d_reset)
        torch.sub(frame.state, new, out=d_update).mul_(self.d_state)
        _sigmoid_gradient(self._d_sigmoids, gates.sigmoids, grad_input=self._d_sigmoids)
        self.input_sum.addmm_(frame.inputs_1, self._d_input.t())
        self.state_sum.addmm_(frame.one_state, self._d_product.t())
        self._spare.addmm_(self.to_state, self._d_product)
        self.d_state, self._spare = self._spare, self.d_state
        return self._d_input

    def gradients(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Of the weights, in torch's order and shapes."""
        state_sum = self.state_sum.roll(-self.hidden, 1)
        w_ih, w_hh = self.input_sum[:-1].t(), state_sum[1:].t()
        return w_ih.contiguous(), w_hh.contiguous(), self.input_sum[-1], state_sum[0]


def _shapes(
    cells: Sequence[_Cell], steps: int, assets: int, *, whole: bool
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Of a tape's frames and gates."""
    layers, hidden = len(cells), cells[0].hidden
    rows = sum(cell.inputs + 1 for cell in cells) + hidden
    frames, gates = (layers + steps, 1 + steps) if whole else (layers + 1, 1)
    return (frames, rows, assets), (layers, gates, _BLOCKS, hidden, assets)


def _size(cells: Sequence[_Cell], steps: int, assets: int, *, whole: bool) -> int:
    """How many numbers a tape holds."""
    return sum(map(prod, _shapes(cells, steps, assets, whole=whole)))


class _Layer(NamedTuple):
    """One layer's views of a tape, made once: a view costs a microsecond, a step has 40."""

    cell: _Cell
    frames: list[_Frame]
    """What the layer reads at each step; its state is what the step before left."""
    gates: list[_Gates]


class _Tape:
    """States and gates of a chunk of assets: of all steps, or, `whole=False`, the newest.

    Frame t + l is what layer l reads at step t. Its rows are [x; 1; state 0; 1; state 1 ...]:
    the state of a layer is the input of the layer above, one frame later.
    """

    def __init__(
        self, cells: Sequence[_Cell], x: Float[Tensor, "M T F"], memory: Tensor, *, whole: bool
    ) -> None:
        self.x, frames, gates = x, *_shapes(cells, x.shape[1], len(x), whole=whole)
        self.frames = memory[: prod(frames)].view(frames)
        stored = memory[prod(frames) : prod(frames) + prod(gates)].view(gates)
        self.layers, start, steps = [], 0, range(x.shape[1])
        for number, cell in enumerate(cells):
            views, part = cell.frames(self.frames[:, start:]), stored[number]
            blocks = zip(*(block.unbind() for block in part.unbind(1)), strict=True)
            own = list(map(_Gates, part[:, 1:3].flatten(1, 2).unbind(), blocks))
            self.layers.append(
                _Layer(
                    cell,
                    [views[(step + number) % len(views)] for step in (*steps, len(steps))],
                    [own[step % len(own)] for step in steps],
                )
            )
            start += cell.inputs + 1

    def run(self) -> Float[Tensor, "H M"]:
        """Run all steps; return the last layer's newest state, a view."""
        for layer in self.layers:
            for frame in layer.frames:
                frame.one_state[0] = 1.0
            layer.frames[0].state.zero_()
        assets, count, features = self.x.shape
        steps = self.x.flatten(1).t().contiguous().view(count, features, assets)  # all at once
        for step, inputs in enumerate(steps):
            self.frames[step % len(self.frames), :features] = inputs
            for layer in self.layers:
                frames = layer.frames
                layer.cell.step(frames[step], layer.gates[step], frames[step + 1].state)
        return self.layers[-1].frames[-1].state

    def run_back(self, d_newest: Float[Tensor, "H M"], d_x: Tensor | None) -> None:
        """Sum all steps' gradients in the cells, and fill `d_x`."""
        for layer in self.layers:
            layer.cell.start_chunk(len(self.x))
        self.layers[-1].cell.d_state += d_newest
        for step in reversed(range(self.x.shape[1])):
            for number, layer in reversed([*enumerate(self.layers)]):
                d_input = layer.cell.step_back(layer.frames[step], layer.gates[step])
                if number:
                    self.layers[number - 1].cell.d_state.addmm_(layer.cell.to_input, d_input)
                elif d_x is not None:
                    d_x[:, step] = torch.mm(layer.cell.to_input, d_input).t()


def _cells(weights: Sequence[Tensor]) -> list[_Cell]:
    return [_Cell(*weights[start : start + 4]) for start in range(0, len(weights), 4)]


def _chunks(cells: Sequence[_Cell], x: Tensor) -> tuple[tuple[Tensor, ...], int]:
    """Equal parts of the assets, and how many numbers the tape of one part holds."""
    asset = _size(cells, x.shape[1], 1, whole=True)
    equal = -(-len(x) // max(1, round(len(x) / CHUNK)))
    assets = max(1, min(equal, STORED_BYTES // (asset * x.itemsize)))
    return x.split(assets), asset * assets


def take_memory(numbers: int, dtype: torch.dtype) -> Tensor:
    """Take `STORED_BYTES` or as much as one chunk needs, from before if no graph holds it."""
    size = max(STORED_BYTES, numbers * dtype.itemsize)
    with suppress(IndexError):
        memory = _free.pop()
        if len(memory) == size:
            return memory.view(dtype)
    return torch.empty(size, dtype=torch.uint8).view(dtype)


@torch.no_grad()
def _forward(x: Tensor, weights: Sequence[Tensor], *, store: bool) -> tuple[Tensor, Tensor]:
    """The newest states, and the memory with the tapes of as many chunks as it has room for."""
    cells = _cells(weights)
    result = x.new_empty(len(x), cells[-1].hidden)
    chunks, size = _chunks(cells, x)
    stored = take_memory(size, x.dtype) if store else x.new_empty(0)
    scratch = x.new_empty(_size(cells, x.shape[1], len(chunks[0]), whole=False))
    for number, (chunk, part) in enumerate(zip(chunks, result.split(len(chunks[0])), strict=True)):
        is_stored = number < len(stored) // size
        memory = stored[number * size :] if is_stored else scratch
        part.copy_(_Tape(cells, chunk, memory, whole=is_stored).run().t())
    return result, stored


class _Recurrence(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, *weights: Tensor) -> Tensor:
        ctx.save_for_backward(x, *weights)
        result, ctx.stored = _forward(x, weights, store=True)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_result: Tensor) -> tuple[Tensor | None, ...]:
        x, *weights = ctx.saved_tensors
        stored, ctx.stored = ctx.stored, None  # of a graph that is retained, all is computed again
        d_x = torch.empty_like(x) if ctx.needs_input_grad[0] else None
        cells = _cells(weights)
        for cell in cells:
            cell.start_backward()
        chunks, size = _chunks(cells, x)
        memory = take_memory(size, x.dtype) if stored is None else stored
        room = 0 if stored is None else len(stored) // size
        for number, chunk in enumerate(chunks):
            known, first = number < room, number * len(chunks[0])
            tape = _Tape(cells, chunk, memory[number * size if known else 0 :], whole=True)
            if not known:  # the first chunk's place is free by now
                tape.run()
            some = slice(first, first + len(chunk))
            tape.run_back(d_result[some].t(), None if d_x is None else d_x[some])
        _free[:] = [memory.view(torch.uint8)]
        return d_x, *(gradient for cell in cells for gradient in cell.gradients())


class GRU(nn.GRU):
    """`nn.GRU(features, hidden, layers, batch_first=True)`, weight for weight.

    On GPUs, under autocast, and in any other dtype than float32 and float64, it is torch's own
    module that computes.
    """

    def __init__(self, features: int, hidden: int, layers: int) -> None:
        super().__init__(features, hidden, layers, batch_first=True)

    # dynamo traces no recurrence, but would go through ours step by step
    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def newest(self, x: Float[Tensor, "B T F"]) -> Float[Tensor, "B H"]:
        """The last layer's state after the last step."""
        weights = [weight for layer in self.all_weights for weight in layer]
        tracked = torch.is_grad_enabled() and any(t.requires_grad for t in (x, *weights))
        if self._is_ours(x):
            if tracked:
                return cast(Tensor, _Recurrence.apply(x, *weights))
            return _forward(x, weights, store=False)[0]
        parts = (x,) if tracked or x.device.type != "cpu" else x.split(TORCH_CHUNK)
        return torch.cat([self(part)[0][:, -1] for part in parts])

    def _is_ours(self, x: Tensor) -> bool:
        """Whether our own code can compute it."""
        return (
            x.device.type == "cpu"
            and x.dtype in (torch.float32, torch.float64)
            and x.dtype == self.weight_ih_l0.dtype
            and not torch.is_autocast_enabled("cpu")
        )


class LSTM(nn.LSTM):
    """`nn.LSTM(features, hidden, layers, batch_first=True)`; on CPUs it computes in chunks."""

    chunk = 128
    """Assets at a time with gradients: for 2 x 128 as fast as a recurrence of our own."""
    stored = 2048
    """Assets whose intermediate tensors are stored for the gradient."""

    def __init__(self, features: int, hidden: int, layers: int) -> None:
        super().__init__(features, hidden, layers, batch_first=True)

    def newest(self, x: Float[Tensor, "B T F"]) -> Float[Tensor, "B H"]:
        """The last layer's state after the last step."""
        return cast(Tensor, self._run(x, lambda states: states[:, -1]))

    def every(self, x: Float[Tensor, "B T F"], layer: nn.Linear) -> Float[Tensor, "B T O"]:
        """`layer` of the last layer's state, at each step."""
        return cast(Tensor, self._run(x, layer))

    @torch.compiler.disable  # type: ignore[untyped-decorator]  # dynamo traces no recurrence
    def _run(self, x: Tensor, read: Callable[[Tensor], Tensor]) -> Tensor:
        def compute(part: Tensor) -> Tensor:
            return read(self(part)[0])

        if x.device.type != "cpu":
            return compute(x)
        chunk = self.chunk if torch.is_grad_enabled() else TORCH_CHUNK
        return run_in_chunks(compute, x, chunk=chunk, stored=self.stored)
