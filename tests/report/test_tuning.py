"""The page of a search, from its files alone."""

import re
from pathlib import Path

import pytest

from gangru_dist.base.storage import Storage
from gangru_dist.config.settings import RunConfig
from gangru_dist.report.document import write_report
from gangru_dist.report.tuning import describe_search, write_page
from gangru_dist.runs.run import Run
from gangru_dist.runs.search import make_trial_table, read_search
from tests.report.store import RUN, write_world

SPACE = {
    "training.learning_rate": {
        "kind": "float",
        "low": 1e-4,
        "high": 1e-2,
        "log": True,
        "step": None,
    },
    "gru.head": {"kind": "choice", "choices": [[8, 4], [4]]},
    "gru.layers": {"kind": "int", "low": 1, "high": 3, "log": False, "step": None},
}


SEARCH = "tune/search.json"


def write_search(run: Storage, *, trials: int = 6, best: int | None = 3) -> None:
    status = ["complete", "pruned", "diverged", "complete", "failed", "running"]
    for number in range(trials):
        known = status[number] in ("complete", "pruned")
        ic = 0.01 * number + 0.02 if known else None
        trial = {
            "number": number,
            "settings": {
                "training.learning_rate": 10.0 ** (-4 + number / 3),
                "gru.head": [4] if number % 2 else [8, 4],
                "gru.layers": 1 + number % 3,
            },
            "status": status[number],
            "mean_ic": ic,
            "objective": ic if status[number] == "complete" else None,
            "epochs": 5 + number,
            "seconds": 61.0,
        }
        run.write_json(f"tune/trials/{number:04d}.json", trial)
    record = {
        "identity": {},
        "windows": ["2018-12-28", "2019-06-28"],
        "reported_first": "2019-12-31",
        "overlap": [],
        "incomparable": ["label.horizon"],
        "space": SPACE,
        "asked_trials": 6,
        "spread_penalty": 0.5,
        "best_trial": best,
        "importances": {"gru.layers": 0.7, "training.learning_rate": 0.3} if trials > 4 else {},
    }
    run.write_json(SEARCH, record)


def page_of(folder: Path) -> str:
    return Path(write_page(Run(Storage(str(folder)), "r", RunConfig()))).read_text()


@pytest.fixture
def run(tmp_path: Path) -> Storage:
    storage = Storage(str(tmp_path)).child("runs", "r")
    write_search(storage)
    return storage


class TestReference:
    def test_the_best_so_far_never_falls(self, run: Storage) -> None:
        search = read_search(run.child("tune"))
        assert search is not None
        table = make_trial_table(search)
        assert table["best"].round(6).tolist() == [0.02, 0.02, 0.02, 0.05, 0.05, 0.05]
        assert table["gru.head"].tolist()[:2] == ["[8, 4]", "[4]"]

    def test_the_words_say_what_was_looked_at(self, run: Storage, tmp_path: Path) -> None:
        page = page_of(tmp_path)
        assert "6 trials (2 complete, 1 pruned, 1 diverged, 1 failed, 1 running)" in page
        assert "Trial 3 is best: objective +0.0500, against +0.0200" in page
        assert "2018-12-28, 2019-06-28" in page
        assert 'begin <span class="whole">2019-12-31</span>' in page
        assert "Trials differ in label.horizon" in page
        assert re.findall(r"<tr><td>(\d)</td>", page) == ["3", "0"]
        assert "flatters" not in page

    def test_windows_that_were_looked_at_are_not_called_unseen(
        self, run: Storage, tmp_path: Path
    ) -> None:
        facts = {"reported_first": None, "overlap": ["2019-06-28"]}
        run.write_json(SEARCH, run.read_json(SEARCH) | facts)
        page = page_of(tmp_path)
        assert "begin " not in page
        first, second, *_ = re.findall(r'<p class="warn">(.*?)</p>', page)
        assert "of windows that were looked at" in first
        assert "reported as well: 2019-06-28." in second

    def test_windows_on_the_same_page_are_reported(self, run: Storage) -> None:
        search = read_search(run.child("tune"))
        assert search is not None
        found = describe_search(search, reported=("2019-06-28", "2019-12-31"))
        assert found["reported"] == ["2019-06-28"]


class TestProperties:
    def test_the_page_stands_alone(self, run: Storage, tmp_path: Path) -> None:
        page = page_of(tmp_path)
        assert page.count("<svg") == 3
        figures = re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL)
        assert all(re.search(r'<rect class="tip"[^>]*><title>[^<]*\d', one) for one in figures)
        assert "<title>trial 3\nreached 0.0500\nbest so far 0.0500</title>" in page
        for wanted in ("stopped early", "training.learning_rate", "best so far", "as configured"):
            assert wanted in page

    def test_the_report_has_it_too(self, tmp_path: Path) -> None:
        world = write_world(tmp_path)
        folder = world.root.child("runs", RUN)
        write_search(folder)
        write_report(Run(world.root, RUN, world.cfg))
        page = folder.read_bytes("report/report.html").decode()
        assert "<h2>Tuning</h2>" in page
        assert "Trial 3 is best" in page
        assert folder.read_bytes("report/tuning.csv").count(b"\n") == 7

    @pytest.mark.parametrize("trials", [0, 1])
    def test_a_search_that_has_hardly_begun(self, tmp_path: Path, trials: int) -> None:
        run = Storage(str(tmp_path)).child("runs", "r")
        write_search(run, trials=trials, best=0 if trials else None)
        page = page_of(tmp_path)
        assert ("None is complete yet" in page) is (trials == 0)

    def test_no_search_no_section(self, tmp_path: Path) -> None:
        assert read_search(Storage(str(tmp_path))) is None
