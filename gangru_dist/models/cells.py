"""One step of a GRU or LSTM layer and its gradient, on matrices of rows x assets.

A layer reads a frame, rows [inputs; 1; state]: one matrix product takes in weights and biases,
and each gate is a contiguous block of rows. tanh(x) is 2 sigmoid(2x) - 1, for torch's tanh takes
4 to 6 times as long as its sigmoid. Equations and the order of gates are torch's.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

_sigmoid_gradient = torch.ops.aten.sigmoid_backward.grad_input
_tanh_gradient = torch.ops.aten.tanh_backward.grad_input


def _sigmoid_to_tanh(gate: Tensor) -> None:
    torch.add(gate.new_tensor(-1.0), gate, alpha=2.0, out=gate)


class Frame(NamedTuple):
    """Views of what a layer reads, rows x assets."""

    all: Tensor
    """[inputs; 1; state]"""
    to_1: Tensor
    """[inputs; 1]"""
    from_1: Tensor
    """[1; state]"""
    state: Tensor

    @classmethod
    def views(cls, cell: Cell, frames: Float[Tensor, "N rows M"]) -> list[Frame]:
        """Of the first rows of each frame."""
        one, end = cell.inputs, cell.inputs + 1 + cell.hidden
        ranges = (0, end), (0, one + 1), (one, end), (one + 1, end)
        return list(map(cls, *(frames[:, start:stop].unbind() for start, stop in ranges)))


class Kept(NamedTuple):
    """Views of what a step leaves for its gradient."""

    all: Tensor
    """(K, H, M)"""
    product: Tensor
    """Gates that one matrix product fills, as its rows."""
    pair: Tensor
    """Two gates that are sigmoids, as rows."""
    blocks: tuple[Tensor, ...]
    """K x (H, M)"""


class Cell(ABC):
    """A layer's weights, and in a backward pass the sums of their gradients.

    F inputs, H hidden, M assets, K blocks of H rows that a step keeps for its gradient.
    """

    kept: int
    """K."""
    product: slice
    """Blocks that one matrix product fills."""
    pair: slice
    """Two blocks that are sigmoids, in `kept` and in the gates' gradient."""
    of_input: slice
    """Blocks of the gates' gradient that belong to the product with the inputs."""
    of_state: slice
    """Blocks that belong to the product with the state."""
    turn: int
    """By how many gates `of_state` is turned against torch's order."""
    skips: int
    """1 if a state reaches the next one past the gates too, else 0."""

    def __init__(self, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor, b_hh: Tensor) -> None:
        self.inputs, self.hidden = w_ih.shape[1], w_hh.shape[1]
        self.weights = w_ih, w_hh
        self.pack(w_ih, w_hh, b_ih[:, None], b_hh[:, None])

    @abstractmethod
    def pack(self, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor, b_hh: Tensor) -> None:
        """Lay the weights out for `step`."""

    @abstractmethod
    def step(self, frame: Frame, before: Kept, kept: Kept, state: Tensor) -> None:
        """Fill `kept` and the next `state`.

        `before` is what the step before kept; without gradients it is `kept` itself.
        """

    @abstractmethod
    def gates_gradient(
        self, frame: Frame, before: Kept, kept: Kept, d_state: Tensor, d_skip: Tensor
    ) -> None:
        """Fill `self.d_gates`, and `d_skip` if a state skips the gates, from `d_state`."""

    def start_gradients(self) -> None:
        """Before a backward pass."""
        w_ih, w_hh = self.weights
        self.to_input = w_ih.t().contiguous()
        self.to_state = w_hh.roll(self.turn * self.hidden, 0).t().contiguous()
        self.input_sum = w_ih.new_zeros(self.inputs + 1, len(w_ih))
        self.state_sum = w_hh.new_zeros(1 + self.hidden, len(w_hh))

    def views(self, gates: Float[Tensor, "N K H M"]) -> list[Kept]:
        """Of each step's blocks."""
        product, pair = (gates[:, some].flatten(1, 2) for some in (self.product, self.pair))
        blocks = zip(*(block.unbind() for block in gates.unbind(1)), strict=True)
        return list(map(Kept, gates.unbind(), product.unbind(), pair.unbind(), blocks))

    def start_chunk(self, assets: int) -> None:
        """Before the newest step of some assets."""
        new_zeros = self.to_state.new_zeros
        self.d_state, self._spare, self.d_cell = new_zeros(3, self.hidden, assets)
        d_gates = new_zeros(4, self.hidden, assets)
        self.d_blocks, self.d_pair = d_gates.unbind(), d_gates[self.pair].flatten(0, 1)
        self.d_input = d_gates[self.of_input].flatten(0, 1)
        self.d_product = d_gates[self.of_state].flatten(0, 1)

    def back(self, frame: Frame, before: Kept, kept: Kept) -> Float[Tensor, "rows M"]:
        """Take `d_state` one step back and sum the weights' gradients.

        Returns:
            The gradient of the product with the inputs, valid until the next call.
        """
        self.gates_gradient(frame, before, kept, self.d_state, self._spare)
        self.input_sum.addmm_(frame.to_1, self.d_input.t())
        self.state_sum.addmm_(frame.from_1, self.d_product.t())
        self._spare.addmm_(self.to_state, self.d_product, beta=self.skips)
        self.d_state, self._spare = self._spare, self.d_state
        return self.d_input

    def gradients(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Of the weights, in torch's order and shapes."""
        state_sum = self.state_sum.roll(-self.turn * self.hidden, 1)
        w_ih, w_hh = self.input_sum[:-1].t(), state_sum[1:].t()
        return w_ih.contiguous(), w_hh.contiguous(), self.input_sum[-1], state_sum[0]


class GruCell(Cell):
    """Blocks: the new gate's product with the state, reset, update, new; gradients alike."""

    kept, product, pair = 4, slice(1, 3), slice(1, 3)
    of_input, of_state, turn, skips = slice(1, 4), slice(0, 3), 1, 1

    def pack(self, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor, b_hh: Tensor) -> None:
        new = 2 * self.hidden
        both = torch.cat([w_ih, b_ih + b_hh, w_hh], dim=1)
        self.reset_update = both[:new].contiguous()
        self.new_of_input = 2.0 * torch.cat([w_ih[new:], b_ih[new:]], dim=1)
        self.new_of_state = torch.cat([b_hh[new:], w_hh[new:]], dim=1)

    def step(self, frame: Frame, before: Kept, kept: Kept, state: Tensor) -> None:
        of_state, reset, update, new = kept.blocks
        torch.mm(self.reset_update, frame.all, out=kept.product).sigmoid_()
        torch.mm(self.new_of_state, frame.from_1, out=of_state)
        torch.mm(self.new_of_input, frame.to_1, out=new)
        new.addcmul_(of_state, reset, value=2.0).sigmoid_()
        _sigmoid_to_tanh(new)
        torch.lerp(new, frame.state, update, out=state)

    def gates_gradient(
        self, frame: Frame, before: Kept, kept: Kept, d_state: Tensor, d_skip: Tensor
    ) -> None:
        of_state, reset, update, new = kept.blocks
        d_of_state, d_reset, d_update, d_new = self.d_blocks
        torch.mul(d_state, update, out=d_skip)
        torch.sub(d_state, d_skip, out=d_new)
        _tanh_gradient(d_new, new, grad_input=d_new)
        torch.mul(d_new, reset, out=d_of_state)
        torch.mul(d_new, of_state, out=d_reset)
        torch.sub(frame.state, new, out=d_update).mul_(d_state)
        _sigmoid_gradient(self.d_pair, kept.pair, grad_input=self.d_pair)


class LstmCell(Cell):
    """Blocks: input, forget, new, output gate, then the cell and its tanh."""

    kept, product, pair = 6, slice(0, 4), slice(0, 2)
    of_input, of_state, turn, skips = slice(0, 4), slice(0, 4), 0, 0

    def pack(self, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor, b_hh: Tensor) -> None:
        self.gates = torch.cat([w_ih, b_ih + b_hh, w_hh], dim=1)
        self.gates[2 * self.hidden : 3 * self.hidden] *= 2.0

    def step(self, frame: Frame, before: Kept, kept: Kept, state: Tensor) -> None:
        take, forget, new, give, cell, tanh = kept.blocks
        torch.mm(self.gates, frame.all, out=kept.product).sigmoid_()
        _sigmoid_to_tanh(new)
        torch.mul(forget, before.blocks[4], out=cell).addcmul_(take, new)
        torch.add(cell, cell, out=tanh).sigmoid_()
        _sigmoid_to_tanh(tanh)
        torch.mul(give, tanh, out=state)

    def gates_gradient(
        self, frame: Frame, before: Kept, kept: Kept, d_state: Tensor, d_skip: Tensor
    ) -> None:
        take, forget, new, give, _, tanh = kept.blocks
        d_take, d_forget, d_new, d_give = self.d_blocks
        torch.mul(d_state, give, out=d_new)
        self.d_cell += _tanh_gradient(d_new, tanh, grad_input=d_new)
        torch.mul(self.d_cell, new, out=d_take)
        torch.mul(self.d_cell, before.blocks[4], out=d_forget)
        torch.mul(self.d_cell, take, out=d_new)
        torch.mul(d_state, tanh, out=d_give)
        _sigmoid_gradient(self.d_pair, kept.pair, grad_input=self.d_pair)
        _tanh_gradient(d_new, new, grad_input=d_new)
        _sigmoid_gradient(d_give, give, grad_input=d_give)
        self.d_cell *= forget
