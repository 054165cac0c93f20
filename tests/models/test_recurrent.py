"""Our GRU and LSTM against torch's."""

import copy
import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from gangru_dist.models import precision, recurrent
from gangru_dist.models.recurrent import GRU, LSTM

STEPS = 7
TOLERANCE = {torch.float64: 1e-10, torch.float32: 3e-6}
"""Of the largest number compared."""


class Predictor(nn.Module):
    """The newest state of ours (`fast`) or of torch's module with the same weights."""

    def __init__(self, kind: type, features: int, hidden: int = 12, layers: int = 2) -> None:
        super().__init__()
        self.core = kind(features, hidden, layers)
        self.fast = True

    def forward(self, x: Tensor) -> Tensor:
        newest: Tensor = self.core.newest(x) if self.fast else self.core(x)[0][:, -1]
        return newest


class EveryStep(Predictor):
    """A linear layer of all states."""

    def __init__(self, kind: type, features: int, hidden: int = 12, layers: int = 2) -> None:
        super().__init__(kind, features, hidden, layers)
        self.out = nn.Linear(hidden, 5)

    def forward(self, x: Tensor) -> Tensor:
        every: Tensor = self.core.every(x, self.out) if self.fast else self.out(self.core(x)[0])
        return every


KINDS = [(GRU, Predictor), (LSTM, Predictor), (LSTM, EveryStep)]


def result_and_gradients(net: Predictor, x: Tensor, *, fast: bool) -> list[Tensor]:
    """For one gradient of the result, drawn anew."""
    net.fast, x = fast, x.clone().requires_grad_()
    result = net(x)
    drawn = torch.randn(result.shape, generator=torch.Generator().manual_seed(2))
    inputs = [x, *net.parameters()]
    return [result.detach(), *torch.autograd.grad(result, inputs, drawn.to(x.dtype))]


def assert_same(found: list[Tensor], expected: list[Tensor], tolerance: float) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        scale = theirs.abs().max().item() if theirs.numel() else 1.0
        torch.testing.assert_close(ours, theirs, rtol=0, atol=tolerance * max(scale, 1e-3))


@pytest.fixture(params=KINDS, ids=str)
def kind(request: pytest.FixtureRequest) -> tuple[type, type]:
    pair: tuple[type, type] = request.param
    return pair


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(recurrent, "CHUNK", 4)
    monkeypatch.setattr(LSTM, "chunk", 4)
    yield
    recurrent._free.clear()


class TestReference:
    @pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
    @pytest.mark.parametrize(
        ("features", "layers", "assets"), [(18, 1, 11), (18, 2, 1), (36, 3, 11), (1, 2, 4)]
    )
    @pytest.mark.usefixtures("small_chunks")
    def test_results_and_all_gradients_are_torchs(
        self, kind: tuple[type, type], features: int, layers: int, assets: int, dtype: torch.dtype
    ) -> None:
        core, network = kind
        net = network(core, features, layers=layers).to(dtype)
        x = torch.randn(assets, STEPS, features, dtype=dtype)
        found = result_and_gradients(net, x, fast=True)
        assert_same(found, result_and_gradients(net, x, fast=False), TOLERANCE[dtype])

    def test_real_size_rounds_no_worse_than_torch(self, kind: tuple[type, type]) -> None:
        core, network = kind
        net, x = network(core, 18, hidden=128), torch.randn(300, 40, 18)
        found, stock = (result_and_gradients(net, x, fast=fast) for fast in (True, False))
        exact = result_and_gradients(net.double(), x.double(), fast=False)
        for ours, theirs, truth in zip(found, stock, exact, strict=True):
            scale = truth.abs().max()
            ours_off, theirs_off = ((some - truth).abs().max() / scale for some in (ours, theirs))
            assert ours_off < 2 * theirs_off + 1e-6

    @pytest.mark.parametrize(("ours", "theirs"), [(GRU, nn.GRU), (LSTM, nn.LSTM)])
    def test_weights_begin_as_torchs_and_bear_its_names(self, ours: type, theirs: type) -> None:
        torch.manual_seed(5)
        mine = ours(18, 6, 2).state_dict()
        torch.manual_seed(5)
        stock = theirs(18, 6, 2, batch_first=True).state_dict()
        assert list(mine) == list(stock)
        assert all(torch.equal(mine[name], stock[name]) for name in stock)


class TestProperties:
    @pytest.mark.usefixtures("small_chunks")
    def test_what_is_computed_again_changes_no_bit(
        self, kind: tuple[type, type], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        core, network = kind
        net, x = network(core, 18, hidden=16), torch.randn(23, STEPS, 18)
        kept = result_and_gradients(net, x, fast=True)
        monkeypatch.setattr(recurrent, "STORED_BYTES", 200_000)  # room for two chunks or three
        monkeypatch.setattr(LSTM, "stored", 8)
        again = result_and_gradients(net, x, fast=True)
        assert all(torch.equal(one, other) for one, other in zip(kept, again, strict=True))

    def test_memory_for_one_asset_is_always_found(
        self, kind: tuple[type, type], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        core, network = kind
        net, x = network(core, 18), torch.randn(3, STEPS, 18)
        expected = result_and_gradients(net, x, fast=True)
        monkeypatch.setattr(recurrent, "STORED_BYTES", 1)
        assert_same(result_and_gradients(net, x, fast=True), expected, 1e-6)
        recurrent._free.clear()

    def test_twice_the_same_bits(self, kind: tuple[type, type]) -> None:
        core, network = kind
        net, x = network(core, 18), torch.randn(300, STEPS, 18)
        first, second = (result_and_gradients(net, x, fast=True) for _ in range(2))
        assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))

    def test_without_gradients_nothing_is_kept(
        self, kind: tuple[type, type], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        core, network = kind
        net, x = network(core, 18), torch.randn(5, STEPS, 18)
        expected = net(x)
        monkeypatch.delattr(recurrent, "take_memory")
        with torch.no_grad():
            found = net(x)
        frozen = net.requires_grad_(False)(x)
        if core is GRU:  # an LSTM without gradients is torch's, which has several kernels
            assert torch.equal(found, expected)
            assert torch.equal(found, frozen)
        for other in (expected.detach(), frozen):
            assert_same([found], [other], TOLERANCE[x.dtype])

    def test_inputs_without_gradient_cost_none(self) -> None:
        net, x = Predictor(GRU, 18), torch.randn(5, STEPS, 18)
        counted = []
        for inputs in (x, x.clone().requires_grad_()):
            with FlopCounterMode(display=False) as counter:
                net(inputs).sum().backward()
            counted.append(counter.get_total_flops())
        assert counted[1] - counted[0] == 2 * 3 * 12 * 18 * 5 * STEPS
        assert x.grad is None

    def test_two_graphs_at_once(self, kind: tuple[type, type]) -> None:
        core, network = kind
        net, x, other = network(core, 18), torch.randn(5, STEPS, 18), torch.randn(6, STEPS, 18)
        weights = list(net.parameters())
        expected = [torch.autograd.grad(net(y).sum(), weights) for y in (x, other)]
        results = [net(y).sum() for y in (x, other)]
        found = [torch.autograd.grad(result, weights) for result in results]
        for one, same in zip(found, expected, strict=True):
            assert all(map(torch.equal, one, same))

    def test_no_assets(self, kind: tuple[type, type]) -> None:
        core, network = kind
        net = network(core, 18)
        result = net(torch.randn(0, STEPS, 18))
        result.sum().backward()
        assert len(result) == 0
        assert all((weight.grad == 0).all() for weight in net.parameters())

    def test_a_copy_is_independent(self, kind: tuple[type, type]) -> None:
        core, network = kind
        net, x = network(core, 18), torch.randn(5, STEPS, 18)
        twin = copy.deepcopy(net)
        with torch.no_grad():
            next(net.parameters()).zero_()
        assert not torch.equal(net(x), twin(x))

    @pytest.mark.skipif(
        "bf16" not in precision.describe_device(torch.device("cpu")).fast,
        reason="this CPU has no bf16",
    )
    def test_bf16_is_torchs(self, kind: tuple[type, type]) -> None:
        core, network = kind
        net, x = network(core, 18), torch.randn(5, STEPS, 18)
        with torch.autocast("cpu", torch.bfloat16):
            found = net(x)
            net.fast = False
            expected = net(x)
        assert found.dtype == expected.dtype
        assert torch.equal(found, expected)

    @pytest.mark.slow
    def test_inside_a_compiled_module(self) -> None:
        """In a process of its own: dynamo cannot trace the type checks of the test session."""
        subprocess.run([sys.executable, "-m", __name__], check=True, timeout=300)


class TestValidation:
    def test_a_graph_is_used_once(self, kind: tuple[type, type]) -> None:
        core, network = kind
        result = network(core, 18)(torch.randn(5, STEPS, 18)).sum()
        result.backward()
        with pytest.raises(RuntimeError, match="second time"):
            result.backward()

    def test_unless_it_is_retained(self, kind: tuple[type, type]) -> None:
        core, network = kind
        net = network(core, 18)
        result, weights = net(torch.randn(5, STEPS, 18)).sum(), list(net.parameters())
        first = torch.autograd.grad(result, weights, retain_graph=True)
        assert all(map(torch.equal, first, torch.autograd.grad(result, weights)))

    def test_no_second_derivative(self) -> None:
        x = torch.randn(5, STEPS, 18, requires_grad=True)
        (slope,) = torch.autograd.grad(Predictor(GRU, 18)(x).square().sum(), x, create_graph=True)
        with pytest.raises(RuntimeError, match="once_differentiable"):
            slope.sum().backward()


def compiled_is_same() -> None:
    torch.set_num_threads(1)
    for core, network in KINDS:
        net, x = network(core, 18), torch.randn(5, STEPS, 18)
        expected = result_and_gradients(net, x, fast=True)
        net.compile(backend="aot_eager")
        assert_same(result_and_gradients(net, x, fast=True), expected, 1e-6)


if __name__ == "__main__":
    compiled_is_same()
