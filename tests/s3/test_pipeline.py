"""Every stage on s3://, by the command a user types; under faults: tests/cluster/test_submit.py."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pyarrow.fs as pafs
import pytest
from s3.server import BUCKET, S3Server
from tiny import FLAGS

PROJECT = Path(__file__).parents[2]


@pytest.mark.ray
@pytest.mark.trials
@pytest.mark.timeout(1800)
def test_no_secret_is_written_anywhere(s3: S3Server) -> None:
    """Neither key is in any object, in what the job says, or in Ray's logs."""
    words = ["--preset", "demo", "--run", "tiny", "--bars", "synthetic", *FLAGS]
    command = [sys.executable, "jobs/pipeline.py", "--storage", f"s3://{BUCKET}/clean", *words]
    # a short path: Ray's sockets may have 107 letters
    with tempfile.TemporaryDirectory(prefix="g", ignore_cleanup_errors=True) as folder:
        own = {"RAY_TMPDIR": folder, "RAY_raylet_start_wait_time_s": "300"}
        done = subprocess.run(
            command, cwd=PROJECT, env=os.environ | s3.environment | own, capture_output=True
        )
        logs = {str(p): p.read_bytes() for p in Path(folder).rglob("*") if p.is_file()}
    assert done.returncode == 0, done.stderr[-3000:]
    assert any(name.endswith(".log") for name in logs)
    texts = {"stdout": done.stdout, "stderr": done.stderr, **logs}
    filesystem = s3.filesystem()
    for info in filesystem.get_file_info(pafs.FileSelector(f"{BUCKET}/clean", recursive=True)):
        if info.type == pafs.FileType.File:
            texts[info.path] = filesystem.open_input_file(info.path).readall()
    assert any(name.endswith("runs/tiny/config.json") for name in texts)
    assert any(name.endswith("report.html") for name in texts)
    secrets = (s3.secret_key.encode(), s3.access_key.encode())
    leaks = [name for name, text in texts.items() if any(key in text for key in secrets)]
    assert leaks == []
