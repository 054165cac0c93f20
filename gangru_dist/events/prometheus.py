"""The project's Prometheus metrics, beside Ray's own [Ray].

Ray's agents serve them as `ray_<name>` on each node (docs/operations.md); cluster/grafana/ has a
dashboard. Without a Ray session nothing is recorded.
"""

from __future__ import annotations

import functools

import ray
from ray.util.metrics import Counter, Gauge

from gangru_dist.events.events import EpochTrained, RowsScored, WindowDone
from gangru_dist.runs.model import GanEpoch

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
def get_metric(name: str) -> Counter | Gauge:
    """Make the metric of this name, once a process."""
    kind, text, labels = DESCRIPTIONS[name]
    return kind(name, description=text, tag_keys=labels)


def record(event: object) -> None:
    """A sink: set the gauges and add to the counters that an event is about."""
    if not ray.is_initialized():
        return
    match event:
        case EpochTrained(name=window, epoch=epoch):
            labels = {"window": window, "stage": epoch.result.stage}
            get_metric(SAMPLES_PER_SECOND).set(epoch.samples_per_s, tags=labels)
            if not isinstance(epoch.result, GanEpoch):
                get_metric(VALID_IC).set(epoch.result.valid_ic, tags={"window": window})
        case WindowDone(result=result) if result.status in ("trained", "resumed", "failed"):
            get_metric(WINDOWS).inc(tags={"status": result.status})
        case RowsScored(rows=rows) if rows > 0:
            get_metric(SCORED_ROWS).inc(rows)
