"""The six jobs: their scripts in `jobs/`, and what they refuse before Ray starts."""

import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gangru_dist.commands import main
from tests.made_bars import make_bars, write

PROJECT = Path(__file__).parents[2]
SCRIPTS = sorted((PROJECT / "jobs").glob("*.py"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_script_is_its_command(
    script: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [str(script), "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(script), run_name="__main__")
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: gangru {script.stem} ")


def test_a_misspelt_setting_is_one_line_and_status_2(tmp_path: Path) -> None:
    words = ["jobs/train.py", "--storage", str(tmp_path), "--set", "training.epocs=5"]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, cwd=PROJECT)
    assert done.returncode == 2
    assert done.stderr.startswith("error: unknown setting 'training.epocs'")
    assert "training.epochs" in done.stderr
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


class TestRefused:
    """With status 2, before Ray starts and a run's name is taken."""

    @pytest.fixture
    def refused(self, capfd: pytest.CaptureFixture[str]) -> Callable[..., str]:
        """Call a command that must fail; return what it wrote to standard error."""

        def call(*words: str | Path) -> str:
            assert main([str(word) for word in words]) == 2
            said = capfd.readouterr().err
            assert "ray_start" not in said
            return said

        return call

    @pytest.mark.parametrize(
        ("words", "says"),
        [
            (["pipeline", "--bars", "no/such/bars"], "no files at"),
            (["train"], "no finished panel at"),
        ],
    )
    def test_a_mistake_at_the_first_step(
        self, tmp_path: Path, refused: Callable[..., str], words: list[str], says: str
    ) -> None:
        assert says in refused(*words, "--storage", tmp_path)
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("job", ["panel", "pipeline"])
    @pytest.mark.parametrize(
        ("drop", "settings", "says"),
        [
            ("adj_factor", (), "--set bars.prices=adjusted and leave out what mixes"),
            ("market_cap", (), "--set 'panel.without=[\"turnover_rate\"]'\n"),
            ("volume", (), "lacks the column(s) volume"),
            (None, ("--set", 'panel.without=["turnover"]'), "no feature 'turnover'"),
        ],
    )
    def test_what_the_headings_tell(
        self,
        tmp_path: Path,
        refused: Callable[..., str],
        job: str,
        drop: str | None,
        settings: tuple[str, ...],
        says: str,
    ) -> None:
        write(tmp_path / "bars", make_bars().drop(columns=[drop] if drop else []))
        storage = tmp_path / "storage"
        said = refused(job, "--storage", storage, "--bars", tmp_path / "bars", *settings)
        assert says in said
        assert not storage.exists()

    @pytest.mark.parametrize("job", ["score", "report"])
    def test_a_misspelt_run(self, tmp_path: Path, refused: Callable[..., str], job: str) -> None:
        (tmp_path / "runs" / "monthly").mkdir(parents=True)
        (tmp_path / "runs" / "monthly" / "config.json").write_text("{}")
        said = refused(job, "--storage", tmp_path, "--run", "montly")
        assert "there is no run 'montly'" in said
        assert "there are: monthly" in said
        assert [path.name for path in (tmp_path / "runs").iterdir()] == ["monthly"]

    def test_a_day_that_is_none(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as ended:
            main(["score", "--storage", str(tmp_path), "--from", "2019-13-01"])
        assert ended.value.code == 2
        says = "'2019-13-01' is not a date (month must be in 1..12): YYYY-MM-DD"
        assert says in capsys.readouterr().err
