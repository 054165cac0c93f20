"""Predictors that are tried in a study and are not among the package's."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from gangru_dist.config.settings import GruConfig
from gangru_dist.models.predictors import make_head


class Features(nn.Module):
    """Attention over the features of a sample: each one's days are a token.

    Source: Liu et al., "iTransformer: inverted transformers are effective for time series
    forecasting" (ICLR 2024), 3. Without biases, as `predictor=transformer` is.
    """

    def __init__(self, features: int, cfg: GruConfig, *, lookback: int) -> None:
        super().__init__()
        self.embed = nn.Linear(lookback, cfg.hidden, bias=False)
        self.names = nn.Parameter(0.1 * torch.randn(features, cfg.hidden))
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                cfg.hidden,
                4,
                dim_feedforward=2 * cfg.hidden,
                dropout=0.0,
                activation="gelu",
                batch_first=True,
                norm_first=True,
                bias=False,
            )
            for _ in range(2)
        )
        self.head = make_head(cfg)

    def forward(self, x: Float[Tensor, "B T F"]) -> Float[Tensor, " B"]:
        states = self.embed(x.transpose(1, 2)) + self.names
        for layer in self.layers:
            states = layer(states)
        return torch.squeeze(self.head(states.mean(dim=1)), -1)
