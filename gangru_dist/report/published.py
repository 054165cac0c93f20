"""What the broker printed about its own factor: shown beside ours, never mixed with it."""

from __future__ import annotations

from typing import Any

SOURCE = (
    "Southwest Securities, machine-learning factor stock selection, monthly report of 2026-03: "
    "GAN_GRU factor, all China A-shares but ST and those listed less than half a year, "
    "monthly from 2019-02 to 2026-02, without costs"
)
"""Author, issue, universe and period of the figures."""

FIGURES: dict[str, float | str] = {
    "ic_mean": 0.1096,
    "ic_stars": "***",
    "ic_latest": -0.0105,
    "ic_mean_12": 0.0517,
    "icir": 0.87,
    "turnover": 0.82,
    "annualized_return": 0.3813,
    "annualized_volatility": 0.2318,
    "information_ratio": 1.64,
    "max_drawdown": 0.2729,
    "annualized_excess": 0.2232,
}
"""Fractions; ratios have no unit."""


def with_published(metrics: dict[str, Any]) -> dict[str, Any]:
    """An evaluation's figures with the broker's beside: what metrics.json holds."""
    return {**metrics, "published": {"source": SOURCE, **FIGURES}}
