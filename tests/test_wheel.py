"""The wheel, outside the checkout: one command that does what the checkout does."""

import datetime as dt
import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pandas as pd
import pytest

from gangru_dist import read_factor
from gangru_dist.runs.run import Run
from gangru_dist.settings import load
from gangru_dist.storage import Storage

ROOT = Path(__file__).parents[1]
TINY = [
    "variant=gru",
    "panel.buckets=2",
    "windows.history_days=120",
    "gru.hidden=4",
    "gru.layers=1",
    "gru.head=[4]",
    "training.epochs=1",
    "factor.quantiles=4",
    "synthetic.assets=40",
    f"synthetic.first={dt.date(2018, 1, 2)}",
    f"synthetic.last={dt.date(2019, 3, 29)}",
    "windows.last=none",
]


def call(*words: str | Path, cwd: Path) -> str:
    """Standard output; outside the checkout, and nothing of it on the path."""
    kept = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "RAY_ADDRESS")}
    done = subprocess.run([*map(str, words)], cwd=cwd, env=kept, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of an environment's scripts that has the wheel, and this one's libraries."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder]
    call(*build, str(ROOT), cwd=folder)
    (wheel,) = folder.glob("*.whl")
    venv.create(folder / "env", with_pip=False, symlinks=True)
    python = folder / "env" / "bin" / "python"
    site = call(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder)
    # its libraries by name: of an editable install's own .pth nothing is read this way
    Path(site.strip(), "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = [sys._base_executable, "-m", "pip", "--python", python, "install", "--quiet"]
    call(*pip, "--no-deps", "--no-index", "--ignore-installed", wheel, cwd=folder)
    return python.parent


@pytest.mark.slow
class TestWheel:
    def test_it_is_the_wheels_code_that_runs(self, installed: Path, tmp_path: Path) -> None:
        code = "import gangru_dist; print(gangru_dist.__file__)"
        assert str(ROOT) not in call(installed / "python", "-c", code, cwd=tmp_path)
        version = call(installed / "gangru", "--version", cwd=tmp_path)
        assert version.startswith("gangru_dist 0.")
        assert "gan.dropout = 0.25" in call(installed / "gangru", "settings", "gan", cwd=tmp_path)

    @pytest.mark.ray
    @pytest.mark.usefixtures("ray_cluster")
    def test_the_same_factor_as_from_the_checkout(self, installed: Path, tmp_path: Path) -> None:
        from gangru_dist.pipeline import SYNTHETIC, run_pipeline

        run_pipeline(
            Run(Storage(str(tmp_path / "a")), "tiny", load("demo", None, TINY)), bars=SYNTHETIC
        )
        settings = [word for one in TINY for word in ("--set", one)]
        words = ["pipeline", "--preset", "demo", "--bars", "synthetic", "--run", "tiny", *settings]
        call(installed / "gangru", *words, "--storage", tmp_path / "b", cwd=tmp_path)
        ours, theirs = (read_factor(str(tmp_path / name), "tiny") for name in "ab")
        assert len(ours) > 1000
        pd.testing.assert_frame_equal(ours, theirs)
