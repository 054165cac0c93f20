import subprocess
import sys
from pathlib import Path

import pytest

from tests.made_bars import make_bars, write

JOBS = sorted((Path(__file__).parents[2] / "jobs").glob("*.py"))


def run(*argv: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *map(str, argv)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=300, cwd=JOBS[0].parents[1]
    )


class TestProperties:
    @pytest.mark.parametrize("job", JOBS, ids=lambda job: job.stem)
    def test_help_shows_the_command_and_the_shared_flags(self, job: Path) -> None:
        done = run(job, "--help")
        assert done.returncode == 0
        assert f"gangru {job.stem}" in done.stdout
        assert "--overwrite" in done.stdout


class TestValidation:
    def test_a_misspelt_setting_is_one_line_and_status_2(self, tmp_path: Path) -> None:
        job = next(job for job in JOBS if job.stem == "train")
        done = run(job, "--storage", tmp_path, "--set", "training.epocs=5")
        assert done.returncode == 2
        assert done.stderr.startswith("error: unknown setting 'training.epocs'")
        assert "training.epochs" in done.stderr
        assert done.stderr.count("\n") == 1
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        ("argv", "says"),
        [
            (["pipeline", "--bars", "no/such/bars"], "no files at"),
            (["train"], "no finished panel at"),
        ],
    )
    def test_a_mistake_at_the_first_step_takes_no_name(
        self, tmp_path: Path, argv: list[str], says: str
    ) -> None:
        """So that the corrected command finds the run's name free; and Ray was not started."""
        job = next(job for job in JOBS if job.stem == argv[0])
        done = run(job, "--storage", tmp_path, *argv[1:])
        assert (done.returncode, says in done.stderr) == (2, True)
        assert "ray_start" not in done.stderr
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("job", ["panel", "pipeline"])
    @pytest.mark.parametrize(
        ("drop", "settings", "says"),
        [
            ("adj_factor", (), "--set bars.prices=adjusted\n"),
            ("market_cap", (), "--set 'panel.without=[\"turnover_rate\"]'\n"),
            ("volume", (), "lacks the column(s) volume"),
            (None, ('panel.without=["turnover"]',), "no feature 'turnover'"),
        ],
    )
    def test_what_the_headings_tell_is_said_before_ray_starts(
        self, tmp_path: Path, job: str, drop: str | None, settings: tuple[str, ...], says: str
    ) -> None:
        bars = make_bars().drop(columns=[drop] if drop else [])
        write(tmp_path / "bars", bars)
        flags = [word for text in settings for word in ("--set", text)]
        storage = tmp_path / "storage"
        where = next(one for one in JOBS if one.stem == job)
        done = run(where, "--storage", storage, "--bars", tmp_path / "bars", *flags)
        assert (done.returncode, says in done.stderr) == (2, True), done.stderr
        assert "ray_start" not in done.stderr
        assert not storage.exists()

    def test_a_day_that_is_none_says_why(self, tmp_path: Path) -> None:
        job = next(job for job in JOBS if job.stem == "score")
        done = run(job, "--storage", tmp_path, "--from", "2019-13-01")
        assert done.returncode == 2
        assert "'2019-13-01' is not a date (month must be in 1..12): YYYY-MM-DD" in done.stderr

    @pytest.mark.parametrize("name", ["score", "report"])
    def test_a_misspelt_run_is_no_new_run(self, tmp_path: Path, name: str) -> None:
        (tmp_path / "runs" / "monthly").mkdir(parents=True)
        (tmp_path / "runs" / "monthly" / "config.json").write_text("{}")
        job = next(job for job in JOBS if job.stem == name)
        done = run(job, "--storage", tmp_path, "--run", "montly")
        assert done.returncode == 2
        assert "there is no run 'montly'" in done.stderr
        assert "there are: monthly" in done.stderr
        assert [path.name for path in (tmp_path / "runs").iterdir()] == ["monthly"]
