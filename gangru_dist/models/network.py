"""What scores: the frozen generator (or nothing) and the predictor behind it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from gangru_dist.config import PREDICTORS, GanConfig, GruConfig
from gangru_dist.models.generator import Generator


class FactorNetwork(nn.Module):
    """Standardized samples to pRet: predictor(G(x, 0)), or predictor(x) for `variant: gru`.

    With `gan.output` beside, predictor([x, G(x, 0)]). With `gan.sees`, G gets some of the channels
    of x, and the others stay as they are.

    Raises:
        ValueError: The GAN has no channel, or one that samples lack.
    """

    def __init__(
        self,
        features: int,
        gru: GruConfig,
        gan: GanConfig | None,
        predictor: str = "gru",
        gan_place: range | None = None,
    ) -> None:
        super().__init__()
        place = range(features) if gan_place is None else gan_place
        if not 0 <= place.start < place.stop <= features:
            raise ValueError(f"the GAN sees channels {place} of {features}")
        self.generator = Generator(place, gan) if gan else None
        self.is_beside = gan is not None and gan.output == "beside"
        seen = features + len(place) if self.is_beside else features
        self.predictor: nn.Module = PREDICTORS[predictor](seen, gru)
        self.architecture: dict[str, Any] = {
            "predictor": predictor,
            "features": features,
            "gru": asdict(gru),
            "gan": asdict(gan) if gan else None,
            "gan_channels": [place.start, place.stop] if gan else None,
        }

    def forward(self, x: Float[Tensor, "B T F"]) -> Float[Tensor, " B"]:
        score: Tensor = self.predictor(self.inputs(x))
        return score

    def inputs(self, x: Float[Tensor, "B T F"]) -> Float[Tensor, "B T C"]:
        """What the predictor gets."""
        if self.generator is None:
            return x
        made: Tensor = self.generator(self.generator.seen(x))
        if self.is_beside:
            return torch.cat([x, made], dim=-1)
        if made.shape == x.shape:
            return made
        place = self.generator.place
        return torch.cat([x[..., : place.start], made, x[..., place.stop :]], dim=-1)


def from_architecture(architecture: dict[str, Any]) -> FactorNetwork:
    """An untrained network of a stored architecture; weights are loaded afterwards."""
    gan, place = architecture["gan"], architecture.get("gan_channels")  # older models do not say
    return FactorNetwork(
        architecture["features"],
        GruConfig(**architecture["gru"]),
        GanConfig(**gan) if gan else None,
        architecture.get("predictor", "gru"),  # older models do not say
        None if place is None else range(*place),
    )
