"""The predictors, and the network that scores: the frozen generator, if any, and a predictor.

`predictor=gru` is GRU layers and an MLP with one output [R]; `lstm` and `transformer` are others.
A predictor is a module of samples to scores whose result for a sample depends on that sample
alone (no batch statistics, no dropout of its own), without a parameter that -IC gives no gradient.
`gangru check-plugin` checks this.

The MLP's activation is SiLU [D]: the bias of a ReLU that is on for a whole cross-section has no
true gradient under -IC, and Adam turns its rounding noise into steps, so that models of
different numbers of workers would drift apart (docs/decisions/0007-silu.md).
"""

from __future__ import annotations

import inspect
import math
from dataclasses import asdict, fields
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from gangru_dist.base.errors import ConfigError
from gangru_dist.config.settings import PREDICTORS, GanConfig, GruConfig
from gangru_dist.models.estimators import Estimator, read_options
from gangru_dist.models.gan import Generator
from gangru_dist.models.recurrent import GRU, LSTM


def make_head(cfg: GruConfig) -> nn.Sequential:
    """`cfg.hidden` values to one number."""
    layers: list[nn.Module] = []
    for wide, narrow in pairwise((cfg.hidden, *cfg.head)):
        layers += [nn.Linear(wide, narrow), nn.SiLU()]
    # -IC gives a last bias no gradient, only rounding noise that Adam would amplify
    layers.append(nn.Linear((cfg.hidden, *cfg.head)[-1], 1, bias=False))
    return nn.Sequential(*layers)


class GruPredictor(nn.Module):
    """Maps a feature block to pRet. B samples, T lookback days, F features, H hidden."""

    def __init__(self, features: int, cfg: GruConfig) -> None:
        super().__init__()
        read_options("gru", cfg, {})
        self.gru = GRU(features, cfg.hidden, cfg.layers)
        self.head = make_head(cfg)

    def forward(self, x: Float[Tensor, "B T F"]) -> Float[Tensor, " B"]:
        # (B, 1) to (B,); bare squeeze() would drop B when B == 1
        return torch.squeeze(self.head(self.gru.newest(x)), -1)


class LstmPredictor(nn.Module):
    """LSTM layers and the GRU's head. B samples, T lookback days, F features."""

    def __init__(self, features: int, cfg: GruConfig) -> None:
        super().__init__()
        read_options("lstm", cfg, {})
        self.lstm = LSTM(features, cfg.hidden, cfg.layers)
        self.head = make_head(cfg)

    def forward(self, x: Float[Tensor, "B T F"]) -> Float[Tensor, " B"]:
        return torch.squeeze(self.head(self.lstm.newest(x)), -1)


class TransformerPredictor(nn.Module):
    """Attention over the days of a sample; `gru.options.heads` (4) divides `gru.hidden`.

    Without biases: attention does not see a key's, so it would take steps of rounding noise.
    """

    def __init__(self, features: int, cfg: GruConfig) -> None:
        super().__init__()
        (heads,) = read_options("transformer", cfg, {"heads": 4}).values()
        if not isinstance(heads, int) or heads < 1 or cfg.hidden % heads:
            raise ConfigError(
                f"gru.options.heads={heads!r} must divide gru.hidden={cfg.hidden} for "
                "predictor=transformer."
            )
        self.embed = nn.Linear(features, cfg.hidden, bias=False)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                cfg.hidden,
                heads,
                dim_feedforward=2 * cfg.hidden,
                dropout=0.0,
                activation="gelu",
                batch_first=True,
                norm_first=True,
                bias=False,
            )
            for _ in range(cfg.layers)
        )
        self.head = make_head(cfg)

    def forward(self, x: Float[Tensor, "B T F"]) -> Float[Tensor, " B"]:
        states = self.embed(x)
        states = states + _positions(states)
        for layer in self.layers:
            states = layer(states)
        return torch.squeeze(self.head(states[:, -1]), -1)


def _positions(states: Float[Tensor, "B T H"]) -> Float[Tensor, "T H"]:
    """Sines and cosines of the days' numbers, as in "Attention Is All You Need"."""
    days, hidden = states.shape[1:]
    day = torch.arange(days, device=states.device, dtype=states.dtype)[:, None]
    steps = torch.arange(0, hidden, 2, device=states.device, dtype=states.dtype)
    angles = day * torch.exp(-math.log(1e4) * steps / hidden)
    return torch.cat([angles.sin(), angles.cos()], dim=1)[:, :hidden]


def make_predictor(name: str, channels: int, lookback: int | None, cfg: GruConfig) -> nn.Module:
    """An untrained predictor; its constructor gets `lookback` if it has a parameter of that name.

    What is no torch module is an estimator with `fit` and `predict`.
    """
    make: Any = PREDICTORS[name]
    wants = "lookback" in inspect.signature(make).parameters
    made = make(channels, cfg, lookback=lookback) if wants else make(channels, cfg)
    return made if isinstance(made, nn.Module) else Estimator(made)


@torch.no_grad()
def is_random(predictor: nn.Module, x: Float[Tensor, "B T C"]) -> bool:
    """Whether a predictor scores the same samples otherwise when it is called again."""
    return not torch.equal(predictor(x), predictor(x))


class FactorNetwork(nn.Module):
    """Standardized samples to pRet: predictor(G(x, 0)), or predictor(x) for `variant: gru`."""

    def __init__(
        self,
        features: int,
        gru: GruConfig,
        gan: GanConfig | None,
        predictor: str = "gru",
        lookback: int | None = None,
    ) -> None:
        super().__init__()
        self.generator = Generator(features, gan) if gan else None
        self.predictor = make_predictor(predictor, features, lookback, gru)
        self.architecture: dict[str, Any] = {
            "predictor": predictor,
            "features": features,
            "gru": asdict(gru),
            "gan": asdict(gan) if gan else None,
            "lookback": lookback,
        }

    def forward(self, x: Float[Tensor, "B T F"]) -> Float[Tensor, " B"]:
        score: Tensor = self.predictor(self.inputs(x))
        return score

    def inputs(self, x: Float[Tensor, "B T F"]) -> Float[Tensor, "B T C"]:
        """The predictor's input: samples, or the generator's output for them."""
        if self.generator is None:
            return x
        made: Tensor = self.generator(x)
        return made

    @property
    def is_fitted(self) -> bool:
        """Whether the predictor is fitted by one call, not trained in epochs."""
        return hasattr(self.predictor, "fit")


def from_architecture(architecture: dict[str, Any]) -> FactorNetwork:
    """An untrained network of a stored architecture; weights are loaded afterwards.

    Settings of the GAN's training that earlier versions had are ignored: no score depends on them.
    """
    gan = architecture["gan"]
    kept = {field.name for field in fields(GanConfig)}
    return FactorNetwork(
        architecture["features"],
        GruConfig(**architecture["gru"]),
        GanConfig(**{name: value for name, value in gan.items() if name in kept}) if gan else None,
        architecture.get("predictor", "gru"),  # older models do not say
        architecture.get("lookback"),
    )
