"""Generator, discriminator, predictor."""

import numpy as np
import pytest
import torch
from torch import nn

from gangru_dist.config.settings import PREDICTORS, GanConfig, GruConfig
from gangru_dist.models import gan
from gangru_dist.models.gan import STORED, Discriminator, Generator
from gangru_dist.models.predictors import FactorNetwork, GruPredictor, from_architecture

GAN = GanConfig(hidden=6, layers=1, noise_channels=2, channels=(3, 4))
GRU = GruConfig(hidden=5, layers=2, head=(6, 4))


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def gru_in_numpy(x: np.ndarray, weights: dict[str, np.ndarray], layers: int) -> np.ndarray:
    """The published GRU (Cho et al. 2014, in torch's gate order r, z, n); newest state."""
    for layer in range(layers):
        w, u = weights[f"gru.weight_ih_l{layer}"], weights[f"gru.weight_hh_l{layer}"]
        b, c = weights[f"gru.bias_ih_l{layer}"], weights[f"gru.bias_hh_l{layer}"]
        h, states = np.zeros((len(x), u.shape[1])), []
        for t in range(x.shape[1]):
            a_r, a_z, a_n = np.split(x[:, t] @ w.T + b, 3, axis=1)
            g_r, g_z, g_n = np.split(h @ u.T + c, 3, axis=1)
            r, z = sigmoid(a_r + g_r), sigmoid(a_z + g_z)
            h = (1 - z) * np.tanh(a_n + r * g_n) + z * h
            states.append(h)
        x = np.stack(states, axis=1)
    return x[:, -1]


def numbers_kept(samples: int) -> int:
    """How many numbers the discriminator keeps for the gradient."""
    sizes: list[int] = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        sizes.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        Discriminator(10, 3, GAN)(torch.randn(samples, 10, 3), torch.rand(samples, 7))
    return sum(sizes)


class TestReference:
    def test_predictor_is_the_published_gru(self) -> None:
        net = GruPredictor(3, GRU).double()
        weights = {name: tensor.detach().numpy() for name, tensor in net.state_dict().items()}
        x = np.random.default_rng(0).normal(size=(7, 10, 3))
        hidden = gru_in_numpy(x, weights, layers=2)
        for index in (0, 2):
            w, b = weights[f"head.{index}.weight"], weights[f"head.{index}.bias"]
            inner = hidden @ w.T + b
            hidden = inner / (1 + np.exp(-inner))  # SiLU
        expected = (hidden @ weights["head.4.weight"].T)[:, 0]
        found = net(torch.from_numpy(x)).detach()
        np.testing.assert_allclose(found, expected, rtol=1e-10)


class TestProperties:
    def test_last_layer_has_no_bias(self) -> None:
        last = GruPredictor(3, GRU).head[-1]
        assert last.bias is None

    @pytest.mark.parametrize("batch", [1, 5])
    def test_shapes(self, batch: int) -> None:
        x = torch.randn(batch, 10, 3)
        assert Generator(3, GAN)(x, torch.randn(batch, 10, 2)).shape == x.shape
        assert Discriminator(10, 3, GAN)(x).shape == (batch,)
        assert FactorNetwork(3, GRU, GAN)(x).shape == (batch,)

    @pytest.mark.parametrize(("lookback", "features"), [(40, 18), (8, 4), (5, 1), (41, 19)])
    def test_discriminator_takes_any_picture(self, lookback: int, features: int) -> None:
        assert (
            Discriminator(lookback, features, GAN)(torch.randn(2, lookback, features))
            .isfinite()
            .all()
        )

    def test_noise_moves_the_generator_and_none_means_0(self) -> None:
        net, x = Generator(3, GAN), torch.randn(4, 10, 3)
        assert torch.equal(net(x), net(x, torch.zeros(4, 10, 2)))
        assert not torch.equal(net(x), net(x, torch.randn(4, 10, 2)))

    def test_a_sample_does_not_depend_on_its_neighbors(self) -> None:
        net, x = Discriminator(10, 3, GAN), torch.randn(6, 10, 3)
        torch.testing.assert_close(net(x)[2:3], net(x[2:3]))

    @pytest.mark.parametrize("dropout", [False, True])
    def test_discriminator_in_chunks_is_that_of_all_at_once(
        self, dropout: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        net = Discriminator(10, 3, GAN).double()
        draws = torch.rand(11, 7) if dropout else None
        found = []
        for chunk, kept in ((11, 11), (3, 11), (3, 3), (3, 0)):
            monkeypatch.setattr(gan, "CHUNK", chunk)
            monkeypatch.setattr(gan, "STORED", kept)
            x = torch.linspace(-1, 1, 330).double().reshape(11, 10, 3).requires_grad_()
            logit = net(x, draws)
            found.append(
                (logit, *torch.autograd.grad(logit.square().sum(), [x, *net.parameters()]))
            )
        torch.testing.assert_close(found[1:], found[:1] * 3, rtol=1e-10, atol=1e-12)

    def test_memory_of_the_discriminator_does_not_grow_with_the_samples(self) -> None:
        assert numbers_kept(2 * STORED) < 1.4 * numbers_kept(STORED)

    def test_dropout_keeps_the_expectation(self) -> None:
        net = Discriminator(10, 3, GanConfig(channels=(3, 4), dropout=0.5))
        kept = net._keep(torch.rand(20_000, 4))
        assert kept.mean().item() == pytest.approx(1.0, abs=0.02)
        assert set(kept.unique().tolist()) == {0.0, 2.0}

    def test_a_users_predictor_by_its_name(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Newest(nn.Module):
            def __init__(self, features: int, cfg: GruConfig) -> None:
                super().__init__()
                self.out = nn.Linear(features, 1, bias=False)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return self.out(x[:, -1]).squeeze(-1)

        monkeypatch.setitem(PREDICTORS, "newest", Newest)
        net, x = FactorNetwork(3, GRU, None, "newest"), torch.randn(4, 10, 3)
        assert isinstance(from_architecture(net.architecture).predictor, Newest)
        torch.testing.assert_close(net(x), x[:, -1] @ net.predictor.out.weight[0])

    def test_an_architecture_of_an_earlier_version(self) -> None:
        architecture = FactorNetwork(3, GRU, GAN).architecture
        del architecture["predictor"]
        architecture |= {"gan_channels": [0, 3], "gan": architecture["gan"] | {"sees": None}}
        again = from_architecture(architecture)
        assert isinstance(again.predictor, GruPredictor)
        assert again.generator is not None

    def test_architecture_rebuilds_the_network(self) -> None:
        net = FactorNetwork(3, GRU, GAN)
        again = from_architecture(net.architecture)
        again.load_state_dict(net.state_dict())
        x = torch.randn(4, 10, 3)
        assert torch.equal(net(x), again(x))
