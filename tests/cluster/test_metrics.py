"""The dashboard draws what the code records."""

import json
import re

import pytest
from ray.util.metrics import Counter

from cluster.kuberay import PROJECT
from gangru_dist.events import prometheus
from gangru_dist.events.events import RowsScored

DASHBOARD = json.loads((PROJECT / "cluster/grafana/gangru.json").read_text())
EXPRESSIONS = [t["expr"] for panel in DASHBOARD["panels"] for t in panel["targets"]]


def exported(name: str) -> str:
    """As Prometheus sees it: Ray's prefix, and `_total` behind a counter."""
    kind = prometheus.DESCRIPTIONS[name][0]
    return f"ray_{name}_total" if kind is Counter else f"ray_{name}"


class TestReference:
    def test_every_metric_is_drawn_and_no_other(self) -> None:
        drawn = set(re.findall(r"ray_gangru_\w+", " ".join(EXPRESSIONS)))
        assert drawn == {exported(name) for name in prometheus.DESCRIPTIONS}

    @pytest.mark.parametrize("name", prometheus.DESCRIPTIONS)
    def test_labels_are_those_of_the_code(self, name: str) -> None:
        for expression in EXPRESSIONS:
            if exported(name) in expression:
                grouped = re.findall(r"by \(([^)]*)\)", expression)
                used = {label.strip() for part in grouped for label in part.split(",")}
                used |= set(re.findall(r"[{,]\s*(\w+)=", expression))
                assert used <= set(prometheus.DESCRIPTIONS[name][2])

    def test_panels_have_their_own_place_and_number(self) -> None:
        panels = DASHBOARD["panels"]
        assert len({panel["id"] for panel in panels}) == len(panels)
        cells = [
            (x, y)
            for place in (panel["gridPos"] for panel in panels)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        ]
        assert len(set(cells)) == len(cells)


class TestProperties:
    def test_without_a_session_nothing_happens(self, monkeypatch: pytest.MonkeyPatch) -> None:
        prometheus.get_metric.cache_clear()
        monkeypatch.setattr(prometheus.ray, "is_initialized", lambda: False)
        prometheus.record(RowsScored(5))
        assert prometheus.get_metric.cache_info().currsize == 0
