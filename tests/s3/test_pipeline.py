"""Every stage on s3://, by the command a user types; then with a tenth of the requests failing."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pyarrow.fs as pafs
import pytest
from s3.faults import faulty
from s3.server import BUCKET, S3Server
from tiny import FLAGS

from gangru_dist.scoring.table import read_factor

pytestmark = [pytest.mark.ray, pytest.mark.trials, pytest.mark.timeout(1800)]
PROJECT = Path(__file__).parents[2]


def run_pipeline(
    storage: str, environment: dict[str, str], folder: Path
) -> subprocess.CompletedProcess[str]:
    """The job on synthetic bars, its Ray session below `folder`."""
    (folder / "ray").mkdir(parents=True)
    command = [sys.executable, "jobs/pipeline.py", "--preset", "demo", "--run", "tiny", *FLAGS]
    done = subprocess.run(
        [*command, "--bars", "synthetic", "--storage", storage],
        cwd=PROJECT,
        env=os.environ
        | environment
        | {"RAY_TMPDIR": str(folder), "RAY_raylet_start_wait_time_s": "300"},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a short path: Ray's sockets may have 107 letters."""
    import tempfile

    with tempfile.TemporaryDirectory(prefix="g", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def clean(s3: S3Server, short: Path) -> tuple[str, subprocess.CompletedProcess[str]]:
    """Storage of an undisturbed run, and what it said."""
    storage = f"s3://{BUCKET}/clean"
    return storage, run_pipeline(storage, s3.environment, short / "a")


def factor_of(storage: str) -> pd.DataFrame:
    frame = read_factor(storage, "tiny")
    assert len(frame) > 500
    return frame


@pytest.mark.usefixtures("on_s3")
class TestProperties:
    @pytest.mark.trials  # tests/cluster/test_submit.py does the same through a submitted job
    def test_faults_change_nothing(
        self, s3: S3Server, clean: tuple[str, object], short: Path
    ) -> None:
        """10 % of the requests fail, some after the server acted: the same table, bit for bit."""
        with faulty(s3, rate=0.1, seed=3) as proxy:
            storage = proxy.uri(f"{BUCKET}/faults")
            run_pipeline(storage, s3.environment, short / "b")
            counts = proxy.counts()
        failed = sum(count for kind, count in counts.items() if kind != "requests")
        assert failed > 0.05 * counts["requests"] > 5
        assert {"reset_after", "503"} <= set(counts)
        expected, found = factor_of(clean[0]), factor_of(f"s3://{BUCKET}/faults")
        pd.testing.assert_frame_equal(found, expected, check_exact=True)

    def test_no_secret_is_written_anywhere(
        self,
        s3: S3Server,
        clean: tuple[str, subprocess.CompletedProcess[str]],
        short: Path,
    ) -> None:
        """Neither key is in any object, in what the job says, or in Ray's logs."""
        storage, done = clean
        secrets = (s3.secret_key.encode(), s3.access_key.encode())
        texts = {"stdout": done.stdout.encode(), "stderr": done.stderr.encode()}
        filesystem = s3.filesystem()
        everything = pafs.FileSelector(storage.removeprefix("s3://"), recursive=True)
        for info in filesystem.get_file_info(everything):
            if info.type == pafs.FileType.File:
                texts[info.path] = filesystem.open_input_file(info.path).readall()
        logs = [path for path in (short / "a").rglob("*") if path.is_file()]
        texts |= {str(path): path.read_bytes() for path in logs}
        assert any(name.endswith("runs/tiny/config.json") for name in texts)
        assert any(name.endswith("report.html") for name in texts)
        assert any(path.suffix == ".log" for path in logs)
        leaks = [name for name, text in texts.items() if any(key in text for key in secrets)]
        assert leaks == []
