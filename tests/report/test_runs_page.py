"""The page of all runs: from the runs' own records, whole, and right whoever else writes it."""

from __future__ import annotations

import json
import re
import threading
from typing import Any

import numpy as np
import pytest
from scipy import stats

from gangru_dist import commands
from gangru_dist.base.errors import ConfigError, TrainingError
from gangru_dist.base.storage import Storage
from gangru_dist.commands.cli import Job, Outcome, run_job
from gangru_dist.config import presets
from gangru_dist.config.identity import to_dict
from gangru_dist.config.sources import load
from gangru_dist.report.runs import (
    MOST,
    RunSummary,
    find_files,
    read_runs,
    write_comparison,
    write_index,
)
from gangru_dist.report.text import DASH
from tests.report.test_tuning import write_search

CFG = to_dict(presets.ALL["demo"]())
MONTHS = ("2020-01", "2020-02", "2020-03")
ICS = (0.1, 0.2, 0.3)


def add(
    root: Storage,
    name: str,
    *,
    months: tuple[str, ...] = MONTHS,
    ics: tuple[float, ...] = (),
    excess: tuple[float | None, ...] = (1.1, 1.1**2, 1.1**3),
    failed: int = 0,
    cfg: Any = CFG,
) -> None:
    """A run with these records; a report if there are `ics`."""
    folder = root.child("runs", name)
    folder.write_json("config.json", {"run": name, "commit": "a" * 40, "config": cfg})
    if failed:
        result = {"window": "2020-01-31", "seed": 0, "status": "failed", "seconds": 0.0}
        done = {**result, "window": "2020-02-28", "status": "trained", "seconds": 5400.0}
        folder.write_json("summary.json", {"windows": [result] * failed + [done]})
    if ics:
        rows = [
            {"month": month, "ic": ic, "excess_value": value}
            for month, ic, value in zip(months, ics, excess, strict=False)
        ]
        content = {"ic": {"mean": sum(ics) / len(ics), "months": len(ics)}, "monthly": rows}
        folder.write_json("report/metrics.json", content)
        folder.write_bytes("report/report.html", b"<html>")


def listed(root: Storage) -> dict[str, RunSummary]:
    return {run.name: run for run in read_runs(root, find_files(root))}


def page_of(root: Storage, name: str = "index.html") -> str:
    return root.child("runs").read_bytes(name).decode()


@pytest.fixture
def root(tmp_path):
    return Storage(str(tmp_path))


class TestReference:
    def test_a_second_look_finds_the_same_files(self, root):
        """Else each job would write the page five times over."""
        add(root, "good", ics=ICS)
        before = find_files(root)
        assert before == find_files(root)
        add(root, "good", ics=ICS[::-1])
        assert before != find_files(root)

    def test_figures_and_states_are_those_of_the_files(self, root):
        add(root, "good", ics=ICS)
        add(root, "bad", failed=2)
        add(root, "new")
        root.child("runs", "done").write_bytes("windows/2020-01-31/seed-0/model.json", b"{}")
        add(root, "done")
        root.child("runs", "ranked").write_bytes("factor/_delta_log/0.json", b"{}")
        add(root, "ranked")
        found = listed(root)
        assert {name: run.state for name, run in found.items()} == {
            "good": "reported",
            "bad": "failed",
            "new": "started",
            "done": "trained",
            "ranked": "scored",
        }
        assert found["good"].figure("ic.mean") == pytest.approx(0.2)
        assert found["good"].figure("ic.nothing") is None
        assert (found["bad"].failures, found["bad"].hours) == (2, 1.5)
        assert (found["done"].files.models, found["new"].hours) == (1, None)

    def test_a_run_is_told_by_the_nearest_preset_and_what_differs(self, root):
        add(root, "mine", cfg=to_dict(load("report", None, ["evaluation.picks=7"])))
        add(root, "odd", cfg={"unknown": 1})
        found = listed(root)
        assert found["mine"].preset == "report"
        assert found["mine"].changed == ("evaluation.picks: 50 -> 7",)
        assert (found["odd"].preset, found["odd"].changed) == ("", ())

    def test_a_run_with_a_plug_in_that_is_not_here_is_told_too(self, root):
        cfg = {**CFG, "predictor": "not_here.nowhere:Net"}
        add(root, "mine", cfg=cfg, ics=ICS)
        run = listed(root)["mine"]
        assert (run.cfg, run.preset, run.networks) == (
            None,
            "demo",
            "gan_gru, not_here.nowhere:Net",
        )
        assert run.changed == ("predictor: 'gru' -> 'not_here.nowhere:Net'",)
        write_index(root)
        assert "another version" not in page_of(root)

    def test_searches_are_listed_with_their_best(self, root):
        add(root, "one", ics=ICS)
        write_search(root.child("runs", "looked"))  # claims no name
        root.child("runs", "looked").write_bytes("tune/tuning.html", b"<html>")
        write_index(root)
        part = page_of(root).partition('<section id="searches">')[2].partition("</section>")[0]
        assert '<a href="looked/tune/tuning.html">looked</a>' in part
        assert "<td>6</td><td>2</td><td>+0.0500</td>" in part
        assert list(listed(root)) == ["one"]

    def test_short_trainings_have_a_time_and_the_chart_its_axes(self, root):
        add(root, "one", ics=ICS, failed=1)
        add(root, "two", ics=ICS)
        summary = root.child("runs", "one").read_json("summary.json")
        summary["windows"][1]["seconds"] = 90.0
        root.child("runs", "one").write_json("summary.json", summary)
        write_index(root)
        page = page_of(root)
        assert '<td data-value="0.025">2\u202fmin</td>' in page
        chart = re.search(r'<svg class="curves".*?</svg>', page, re.DOTALL)[0]
        texts = re.findall(r"<text [^>]*>([^<]+)</text>", chart)
        assert texts == ["1.00", "1.10", "1.20", "1.30", *MONTHS]
        hues = set(re.findall(r"--hue: (#[0-9a-f]{6}); --dash: ([^;]+);", page))
        assert len(hues) == 2

    def test_the_last_used_comes_first(self, root):
        for name in ("b", "c", "a"):
            add(root, name)
        assert list(listed(root)) == ["a", "c", "b"]

    def test_runs_are_compared_over_the_months_of_both(self, root):
        add(root, "one", ics=ICS)
        add(root, "two", months=MONTHS[1:], ics=(0.1, 0.1))
        write_comparison(root, ["one", "two"])
        found = root.child("runs").read_json("compare.json")
        assert [month["month"] for month in found["months"]] == list(MONTHS)
        last = found["months"][-1]["runs"]
        assert last["one"] == pytest.approx({"ic": 0.3, "excess": 1.1**3})
        assert last["two"] == pytest.approx({"ic": 0.1, "excess": 1.1**2})
        (pair,) = found["pairs"]
        test = stats.ttest_rel([0.2, 0.3], [0.1, 0.1])
        assert (pair["run"], pair["less"], pair["months"]) == ("one", "two", 2)
        assert pair["t"] == pytest.approx(test.statistic)
        assert pair["mean_difference"] == pytest.approx(np.mean([0.1, 0.2]))
        page = page_of(root, "compare.html")
        assert re.search(r"<td>2</td><td>\+0\.150", page)
        assert "only the paired test compares them" in page

    def test_what_a_month_without_an_ic_earned_counts(self, root):
        """Its holdings are kept: the value at the next month's end has it."""
        add(root, "one", ics=(0.1, 0.3), months=(MONTHS[0], MONTHS[2]), excess=(1.1, 1.331))
        add(root, "none", ics=ICS, excess=(None, None, None))
        write_comparison(root, ["one", "none"])
        found = root.child("runs").read_json("compare.json")["months"]
        values = [month["runs"].get("one", {}).get("excess") for month in found]
        assert values == [1.1, None, 1.331]
        assert [month["runs"]["none"]["excess"] for month in found] == [None] * 3
        page = page_of(root, "compare.html")
        assert "</svg>one 1.33</span>" in page
        assert f"</svg>none {DASH}</span>" in page


class TestProperties:
    def test_all_runs_are_there_and_names_are_escaped(self, root):
        add(root, "one", ics=ICS)
        add(root, "two", ics=ICS, cfg={**CFG, "variant": "<b>"})
        assert write_index(root).endswith("runs/index.html")
        page = page_of(root)
        assert 'href="one/report/report.html"' in page
        assert "<td><b>" not in page
        assert "2 runs in this storage." in page

    def test_results_that_come_while_the_page_is_written_are_on_it(self, root, monkeypatch):
        add(root, "one", ics=ICS)
        write, late = Storage.write_bytes, []

        def interrupted(self, name, data):
            if name == "index.html" and not late:
                late.append(True)
                add(root, "one", ics=(0.4, 0.4, 0.4))
                add(root, "late")
            write(self, name, data)

        monkeypatch.setattr(Storage, "write_bytes", interrupted)
        write_index(root)
        assert ">late<" in page_of(root)
        assert "<td>+0.400</td>" in page_of(root)

    def test_jobs_that_end_at_once_leave_a_page_with_all(self, root):
        def job(name):
            for mean in (0.1, 0.2, 0.3):
                add(root, name, ics=(mean,) * 3)
                write_index(root)

        names = [f"run-{n}" for n in range(6)]
        threads = [threading.Thread(target=job, args=(name,)) for name in names]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        page = page_of(root)
        assert page.endswith("</html>")
        rows = re.findall(r'href="(run-\d)/report.*?<td>3</td><td>(.*?)</td>', page)
        assert sorted(rows) == [(name, "+0.300") for name in names]

    def test_a_damaged_run_hides_no_other(self, root, caplog):
        add(root, "one")
        root.child("runs", "torn").write_bytes("config.json", b"{")
        add(root, "half")
        root.child("runs", "half").write_bytes("report/metrics.json", b"{")
        assert list(listed(root)) == ["one"]
        assert {"torn", "half"} <= set(caplog.text.replace("=", " ").split())

    def test_the_page_stays_small_however_many_runs(self, root):
        months = tuple(f"{y}-{m:02d}" for y in range(2010, 2020) for m in range(1, 13))
        for n in range(MOST + 15):
            add(root, f"run-{n}", months=months, ics=(0.1,) * len(months))
        write_index(root)
        page = page_of(root)
        assert len(page) < 700_000
        assert page.count('type="checkbox"') == MOST
        assert f"{15} runs used longer ago are left out" in page

    def test_an_empty_storage_has_a_page_and_it_speaks_the_last_runs_language(self, root):
        write_index(root)
        assert "0 runs in this storage." in page_of(root)
        add(root, "one", cfg=to_dict(load("demo", None, ["report.language=zh"])))
        write_index(root)
        assert "全部运行" in page_of(root)


class TestJobs:
    """Every job writes the page at its end; none fails because of it."""

    def call(self, root: Storage, body: Any, *more: str, **kw: Any) -> int:
        argv = ["--storage", root.path, "--run", "r", *more]
        return run_job("doc", body, argv, **kw)

    def test_a_job_that_ends_or_fails_writes_it(self, root):
        def body(job: Job) -> Outcome:
            job.run.claim()
            return Outcome(outputs=())

        def failing(job: Job) -> Outcome:
            add(root, "beside")
            raise TrainingError("no")

        assert self.call(root, body) == 0
        assert ">r<" in page_of(root)
        assert self.call(root, failing) == 1
        assert ">beside<" in page_of(root)

    def test_a_job_without_a_run_and_a_dry_one_write_nothing(self, root):
        assert self.call(root, lambda job: Outcome(outputs=())) == 0
        add(root, "r")
        assert self.call(root, lambda job: 1 / 0, "--dry-run", plan=lambda job: {"a": 1}) == 0
        assert root.list_files() == ["runs/r/config.json"]

    def test_a_page_that_cannot_be_written_fails_no_job(self, root, monkeypatch, capfd):
        def nowhere(root: Storage) -> str:
            raise RuntimeError("no place")

        monkeypatch.setattr("gangru_dist.report.runs.write_index", nowhere)
        add(root, "r")
        assert self.call(root, lambda job: Outcome(outputs=())) == 0
        lines = [line for line in capfd.readouterr().err.splitlines() if "runs_page" in line]
        assert len(lines) == 1
        assert "no place" in lines[0]


class TestCommand:
    def test_it_writes_and_names_the_page(self, root, capsys):
        add(root, "one", ics=ICS)
        add(root, "two", failed=1)
        assert commands.main(["runs", "--storage", root.path]) == 0
        head, one, two, place = capsys.readouterr().out.splitlines()
        assert head.split()[:3] == ["run", "variant", "version"]
        assert (one.split()[0], two.split()[0], two.split()[-1]) == ("one", "two", "failed")
        assert "+0.2000" in one
        assert place == f"{root.path}/runs/index.html"
        assert 'href="one/report/report.html"' in page_of(root)

    def test_json_has_an_object_a_run(self, root, capsys):
        add(root, "one", ics=ICS)
        assert commands.main(["runs", "--storage", root.path, "--json"]) == 0
        (row,) = map(json.loads, capsys.readouterr().out.splitlines())
        assert (row["run"], row["state"], row["preset"]) == ("one", "reported", "demo")
        assert row["ic"] == pytest.approx(0.2)
        assert row["report"].endswith("runs/one/report/report.html")

    def test_any_runs_are_compared(self, root, capsys):
        for name in ("one", "two", "three"):
            add(root, name, ics=ICS)
        argv = ["runs", "--storage", root.path, "--compare", "three", "one"]
        assert commands.main(argv) == 0
        out = capsys.readouterr().out
        assert out.endswith(f"{root.path}/runs/compare.html\n")
        assert "two" not in out
        page = page_of(root, "compare.html")
        assert "3 runs in this storage." in page  # tried, not shown
        assert ">two<" not in page

    @pytest.mark.parametrize(
        ("names", "says"),
        [
            (["one"], "--compare one: name two runs or more"),
            (["one", "tow"], "run 'tow' is not there. Runs of"),
            (["one", "new"], "run 'new' has no report yet: run `gangru report`"),
        ],
    )
    def test_a_run_that_cannot_be_compared(self, root, names, says):
        add(root, "one", ics=ICS)
        add(root, "new")
        with pytest.raises(ConfigError, match=re.escape(says)):
            write_comparison(root, names)

    def test_nothing_there_writes_nothing(self, root, capsys):
        assert commands.main(["runs", "--storage", root.path]) == 0
        assert capsys.readouterr().out == f"there are no runs in {root.uri} yet\n"
        assert commands.main(["runs", "--storage", root.path, "--json"]) == 0
        assert capsys.readouterr().out == ""
        assert root.list_files() == []
