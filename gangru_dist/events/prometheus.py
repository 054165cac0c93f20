"""The project's Prometheus metrics, beside Ray's own [Ray].

Ray's agents serve them as `ray_<name>` on each node (docs/operations.md); cluster/grafana/ has a
dashboard. Without a Ray session nothing is recorded.
"""

from __future__ import annotations

import functools

import ray
from ray.util.metrics import Counter, Gauge

SAMPLES_PER_SECOND = "gangru_samples_per_second"
VALID_IC = "gangru_valid_ic"
WINDOWS = "gangru_windows"
SCORED_ROWS = "gangru_scored_rows"

DESCRIPTIONS: dict[str, tuple[type[Counter] | type[Gauge], str, tuple[str, ...]]] = {
    SAMPLES_PER_SECOND: (Gauge, "Training samples per second, all workers.", ("window", "stage")),
    VALID_IC: (Gauge, "Mean validation IC of the newest epoch.", ("window",)),
    WINDOWS: (Counter, "Finished windows and seeds, by status.", ("status",)),
    SCORED_ROWS: (Counter, "Rows scored for the factor table.", ()),
}
"""Name -> kind, description, labels."""


@functools.cache
def _metric(name: str) -> Counter | Gauge:
    kind, text, labels = DESCRIPTIONS[name]
    return kind(name, description=text, tag_keys=labels)


def show(name: str, value: float, **labels: str) -> None:
    """Set a gauge."""
    if ray.is_initialized():
        _metric(name).set(value, tags=labels)


def count(name: str, amount: float = 1, **labels: str) -> None:
    """Add to a counter; an `amount` of 0 is ignored."""
    if ray.is_initialized() and amount > 0:
        _metric(name).inc(amount, tags=labels)
