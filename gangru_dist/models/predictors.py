"""Predictors beside the GRU: `predictor=lstm`, `predictor=transformer`.

What a predictor must be: a module of samples to scores whose result for a sample depends on that
sample alone (no batch statistics, no dropout of its own), without a parameter that -IC gives no
gradient. `gangru check-plugin` asks.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from gangru_dist.config import GruConfig
from gangru_dist.errors import ConfigError
from gangru_dist.models.gru import score_head


class LstmPredictor(nn.Module):
    """LSTM layers and the GRU's head. B samples, T lookback days, F features."""

    def __init__(self, features: int, cfg: GruConfig) -> None:
        super().__init__()
        self.lstm = nn.LSTM(features, cfg.hidden, cfg.layers, batch_first=True)
        self.head = score_head(cfg)

    def forward(self, x: Float[Tensor, "B T F"]) -> Float[Tensor, " B"]:
        states, _ = self.lstm(x)
        score: Tensor = self.head(states[:, -1])
        return score.squeeze(-1)


class TransformerPredictor(nn.Module):
    """Attention over the days of a sample; `gru.options.heads` (4) divides `gru.hidden`.

    Without biases: attention does not see a key's, so it would take steps of rounding noise.
    """

    def __init__(self, features: int, cfg: GruConfig) -> None:
        super().__init__()
        heads = cfg.options.get("heads", 4)
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
        self.head = score_head(cfg)

    def forward(self, x: Float[Tensor, "B T F"]) -> Float[Tensor, " B"]:
        states = self.embed(x)
        states = states + _positions(states)
        for layer in self.layers:
            states = layer(states)
        score: Tensor = self.head(states[:, -1])
        return score.squeeze(-1)


def _positions(states: Float[Tensor, "B T H"]) -> Float[Tensor, "T H"]:
    """Sines and cosines of the days' numbers, as in "Attention Is All You Need"."""
    days, hidden = states.shape[1:]
    day = torch.arange(days, device=states.device, dtype=states.dtype)[:, None]
    steps = torch.arange(0, hidden, 2, device=states.device, dtype=states.dtype)
    angles = day * torch.exp(-math.log(1e4) * steps / hidden)
    return torch.cat([angles.sin(), angles.cos()], dim=1)[:, :hidden]
