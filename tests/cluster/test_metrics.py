"""The dashboard draws what the code records, and the alerts watch it."""

import json
import re

import pytest
import yaml
from ray.util.metrics import Counter

from cluster.kuberay import PROJECT
from gangru_dist.events import prometheus
from gangru_dist.events.events import RowsScored

DASHBOARD = json.loads((PROJECT / "cluster/grafana/gangru.json").read_text())
RULES = yaml.safe_load((PROJECT / "cluster/kuberay/prometheusrule.yaml").read_text())
ALERTS = [rule["expr"] for group in RULES["spec"]["groups"] for rule in group["rules"]]
EXPRESSIONS = [t["expr"] for panel in DASHBOARD["panels"] for t in panel["targets"]] + ALERTS


def exported(name: str) -> str:
    """As Prometheus sees it: Ray's prefix, and `_total` behind a counter."""
    kind = prometheus.DESCRIPTIONS[name][0]
    return f"ray_{name}_total" if kind is Counter else f"ray_{name}"


class TestReference:
    def test_every_metric_is_drawn_and_has_its_alert_and_no_other(self) -> None:
        for expressions in (EXPRESSIONS, ALERTS):
            named = set(re.findall(r"ray_gangru_\w+", " ".join(expressions)))
            assert named == {exported(name) for name in prometheus.DESCRIPTIONS}
        said = (PROJECT / "docs/operations.md").read_text()
        assert set(re.findall(r"^\| `(gangru_\w+)`", said, re.M)) == set(prometheus.DESCRIPTIONS)

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
