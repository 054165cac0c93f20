from __future__ import annotations

import re

import pytest

from gangru_dist import presets
from gangru_dist.config import to_dict
from gangru_dist.report import runs_index
from gangru_dist.report.language import language
from gangru_dist.report.runs_index import list_runs, render, write_index
from gangru_dist.storage import Storage


def _add(root, name, *, months=(), ics=(), failed=0, cfg=None):
    folder = root.child("runs", name)
    folder.write_json("config.json", {"run": name, "commit": "a" * 40, "config": cfg or CFG})
    if failed:
        results = [{"window": "2020-01-31", "seed": 0, "status": "failed", "seconds": 0.0}]
        folder.write_json("summary.json", {"windows": results * failed})
    if months:
        rows = [
            {"month": month, "ic": ic, "excess_return": 0.1}
            for month, ic in zip(months, ics, strict=True)
        ]
        mean = sum(ics) / len(ics)
        content = {"ic": {"mean": mean, "months": len(ics)}, "monthly": rows}
        folder.write_json("report/metrics.json", content)


CFG = to_dict(presets.ALL["demo"]())
MONTHS = ("2020-01", "2020-02", "2020-03")


@pytest.fixture
def root(tmp_path):
    return Storage(str(tmp_path))


class TestReference:
    def test_figures_and_states_are_those_of_the_files(self, root):
        _add(root, "good", months=MONTHS, ics=(0.1, 0.2, 0.3))
        _add(root, "bad", failed=2)
        _add(root, "new")
        found = {run.name: run for run in list_runs(root)}
        states = {name: run.state for name, run in found.items()}
        assert states == {"good": "reported", "bad": "failed", "new": "started"}
        assert found["good"].figure("ic", "mean") == pytest.approx(0.2)
        assert found["good"].figure("ic", "nothing") is None
        assert found["bad"].failed == 2

    def test_a_run_is_told_by_the_nearest_preset_and_what_differs(self, root):
        own = {**CFG, "evaluation": {**CFG["evaluation"], "picks": 7}}
        _add(root, "mine", cfg=own)
        (run,) = list_runs(root)
        assert run.preset == "demo"
        assert [line.split(":")[0] for line in run.changed] == ["evaluation.picks"]

    def test_excess_is_compounded_and_the_test_is_paired(self, root):
        _add(root, "one", months=MONTHS, ics=(0.1, 0.2, 0.3))
        _add(root, "two", months=MONTHS[1:], ics=(0.1, 0.1))
        runs = sorted(list_runs(root), key=lambda run: run.name)
        curves = runs_index._curves(runs, list(MONTHS))
        assert curves.last["one"] == pytest.approx(1.1**3)
        assert curves.last["two"] == pytest.approx(1.1**2)
        page = render(runs, language("en"))
        assert re.search(r"<td>2</td><td>\+0\.150", page)  # of the two common months


class TestProperties:
    def test_all_runs_are_there_and_names_are_escaped(self, root):
        _add(root, "one", months=MONTHS, ics=(0.1, 0.2, 0.3))
        _add(root, "two", months=MONTHS, ics=(0.1, 0.2, 0.2), cfg={**CFG, "variant": "<b>"})
        place = write_index(root)
        page = root.child("runs").read_bytes("index.html").decode()
        assert place.endswith("index.html")
        assert 'href="one/report/report.html"' in page
        assert "<td><b>" not in page

    def test_results_that_come_while_the_page_is_written_are_on_it(self, root, monkeypatch):
        _add(root, "one")
        write, late = Storage.write_bytes, []

        def interrupted(self, name, data):
            if name == "index.html" and not late:
                late.append(True)
                _add(root, "late")
            write(self, name, data)

        monkeypatch.setattr(Storage, "write_bytes", interrupted)
        write_index(root)
        assert ">late<" in root.child("runs").read_bytes("index.html").decode()

    def test_a_damaged_run_hides_no_other(self, root, caplog):
        _add(root, "one")
        root.child("runs", "torn").write_bytes("config.json", b"{")
        assert [run.name for run in list_runs(root)] == ["one"]
        assert "torn" in caplog.text

    def test_an_empty_storage_has_a_page(self, root):
        write_index(root, "zh")
        assert "全部运行" in root.child("runs").read_bytes("index.html").decode()
