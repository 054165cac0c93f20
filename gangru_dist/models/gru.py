"""The predictor: two GRU layers, then an MLP to one number [R].

The MLP's activation is SiLU [D]: the bias of a ReLU that is on for a whole cross-section has no
true gradient under -IC, and Adam turns its rounding noise into steps, so that models of
different numbers of workers would drift apart (docs/decisions/0007-silu.md).
"""

from __future__ import annotations

from itertools import pairwise

from jaxtyping import Float
from torch import Tensor, nn

from gangru_dist.config import GruConfig
from gangru_dist.models.recurrent import GRU


def score_head(cfg: GruConfig) -> nn.Sequential:
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
        self.gru = GRU(features, cfg.hidden, cfg.layers)
        self.head = score_head(cfg)

    def forward(self, x: Float[Tensor, "B T F"]) -> Float[Tensor, " B"]:
        score: Tensor = self.head(self.gru.newest(x))  # (B, 1)
        return score.squeeze(-1)  # (B,); bare squeeze() would drop B when B == 1
