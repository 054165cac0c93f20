"""What Prometheus sees of a job, beside Ray's own metrics [Ray].

Ray's agents serve them as `ray_<name>` on each node (docs/operations.md); cluster/grafana/ draws
them. Without a Ray session nothing is recorded.
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
    SAMPLES_PER_SECOND: (Gauge, "Training samples a second, all workers.", ("window", "stage")),
    VALID_IC: (Gauge, "Mean validation IC of the newest epoch.", ("window",)),
    WINDOWS: (Counter, "Windows and seeds that ended, by status.", ("status",)),
    SCORED_ROWS: (Counter, "Rows scored for the factor table.", ()),
}
"""Name -> kind, what it is, its labels."""


@functools.cache
def _metric(name: str) -> Counter | Gauge:
    kind, text, labels = DESCRIPTIONS[name]
    return kind(name, description=text, tag_keys=labels)


def show(name: str, value: float, **labels: str) -> None:
    """Set a gauge to its newest value."""
    if ray.is_initialized():
        _metric(name).set(value, tags=labels)


def count(name: str, amount: float = 1, **labels: str) -> None:
    """Add to a counter; nothing if `amount` is 0."""
    if ray.is_initialized() and amount > 0:
        _metric(name).inc(amount, tags=labels)
