"""Jobs submitted to a two-node cluster with tokens on: exit codes, logs, stopping, S3, faults."""

import re
import shlex
import time
import urllib.request

import pandas as pd
import pytest
import yaml
from cluster.nodes import PROJECT, Cluster
from s3.faults import faulty
from s3.server import BUCKET, S3Server
from tiny import FLAGS

from gangru_dist.base.storage import Storage
from gangru_dist.config.settings import RunConfig
from gangru_dist.events import prometheus
from gangru_dist.runs.run import Run
from gangru_dist.scoring.reader import read_factor

pytestmark = [
    pytest.mark.ray,
    pytest.mark.trials,
    pytest.mark.timeout(1800),
    pytest.mark.usefixtures("on_s3"),
]


def monthly(storage: str, flags: tuple[str, ...]) -> list[str]:
    """The command of rayjob-monthly.yaml, on synthetic bars, another storage and without GPUs."""
    manifest = yaml.safe_load((PROJECT / "cluster/kuberay/rayjob-monthly.yaml").read_text())
    words = shlex.split(manifest["spec"]["entrypoint"].replace("/opt/gangru/", ""))
    swaps = {
        "default": "demo",
        "s3://my-bucket/bars": "synthetic",
        "s3://my-bucket/gangru": storage,
        "resources.gpus_per_worker=0.25": "resources.gpus_per_worker=0",
    }
    assert set(swaps) <= set(words)
    return [swaps.get(word, word) for word in words] + list(flags)


class TestSecurity:
    def test_without_a_token_nothing_is_answered(self, cluster: Cluster) -> None:
        done = cluster.ray("job", "submit", "--", "python", "-c", "print(1)", token=False)
        assert done.returncode != 0
        assert re.search("token|auth|401", done.stdout + done.stderr, re.IGNORECASE)
        for path in ("/api/jobs/", "/nodes?view=summary", "/api/cluster_status"):
            assert cluster.api(path)[0] == 401
            assert cluster.api(path, "0" * 64)[0] == 403
        status, jobs = cluster.api("/api/jobs/", cluster.token)
        assert status == 200
        assert all("print(1)" not in job["entrypoint"] for job in jobs)


class TestProperties:
    def test_exit_codes(self, cluster: Cluster) -> None:
        """A mistake of the user's: one clear line; the CLI says 1, the job's own status is 2."""
        words = ["--submission-id", "misspelt", "--", "python", "jobs/train.py"]
        done = cluster.submit(*words, "--storage", f"s3://{BUCKET}/x", "--set", "training.epocs=5")
        assert done.returncode == 1
        assert "error: unknown setting 'training.epocs'" in done.stdout
        assert "Traceback" not in done.stdout
        job = cluster.job("misspelt")
        assert (job["status"], job["driver_exit_code"]) == ("FAILED", 2)

    def test_the_monthly_command_on_s3_and_under_faults(
        self, cluster: Cluster, s3: S3Server
    ) -> None:
        """All stages; then again with a tenth of the storage's answers lost: the same factor."""
        check_pipeline(cluster, s3, "tiny", FLAGS)

    def test_the_demo_itself(self, cluster: Cluster, s3: S3Server) -> None:
        check_pipeline(cluster, s3, "demo", ())

    def test_a_stopped_job_resumes(self, cluster: Cluster) -> None:
        storage = f"s3://{BUCKET}/stopped"
        longer = ("--set", "training.epochs=150", "--set", "training.patience=150")
        command = monthly(storage, (*FLAGS, *longer))
        done = cluster.submit("--no-wait", "--submission-id", "stopped", "--", *command)
        assert done.returncode == 0, done.stdout + done.stderr
        wait_for(cluster, "stopped", r"stage=(?!gan)\w+ epoch=3/150")
        expected = {prometheus.SAMPLES_PER_SECOND, prometheus.VALID_IC}
        exported = metrics_of(cluster, expected)
        assert cluster.ray("job", "stop", "stopped").returncode == 0
        assert cluster.job("stopped")["status"] == "STOPPED"
        assert not Storage(storage).list_files("runs/monthly/windows")
        assert expected <= exported

        again = cluster.submit("--submission-id", "again", "--", *command)
        assert again.returncode == 0, again.stdout[-3000:]
        (model,) = Run(Storage(storage), "monthly", RunConfig()).read_models().values()
        assert model.resumed_epochs >= 3


def check_pipeline(cluster: Cluster, server: S3Server, name: str, flags: tuple[str, ...]) -> None:
    clean = f"s3://{BUCKET}/{name}"
    done = cluster.submit("--", *monthly(clean, flags))
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    for event in ("stage_done stage=panel", "epoch_done window=", "window_done", "report.html"):
        assert event in done.stdout
    with faulty(server, rate=0.1, seed=11) as proxy:
        through = proxy.uri(f"{BUCKET}/{name}-faults")
        done = cluster.submit("--", *monthly(through, flags))
        counts = proxy.counts()
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    assert counts["reset_after"] > 0
    assert sum(n for kind, n in counts.items() if kind != "requests") > 0.05 * counts["requests"]
    found = read_factor(f"s3://{BUCKET}/{name}-faults", "monthly")
    assert len(found) > 500
    pd.testing.assert_frame_equal(found, read_factor(clean, "monthly"), check_exact=True)


def wait_for(cluster: Cluster, submission: str, pattern: str) -> None:
    """Until the job's log has a line like `pattern`."""
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline:
        logs = cluster.api(f"/api/jobs/{submission}/logs", cluster.token)[1]["logs"]
        if re.search(pattern, logs):
            return
        state = cluster.job(submission)["status"]
        assert state in ("PENDING", "RUNNING"), logs[-3000:]
        time.sleep(0.3)
    raise AssertionError(f"{pattern} did not appear")


def metrics_of(cluster: Cluster, expected: set[str]) -> set[str]:
    """Our metrics as Prometheus finds them on the head, within twenty seconds."""
    found: set[str] = set()
    for _ in range(40):
        request = urllib.request.Request(f"{cluster.metrics}/metrics")
        request.add_header("Authorization", f"Bearer {cluster.token}")
        with urllib.request.urlopen(request, timeout=30) as answer:
            text = answer.read().decode()
        found = set(re.findall(r"^ray_(gangru_\w+?)(?:_total)?\{", text, re.MULTILINE))
        if expected <= found:
            break
        time.sleep(0.5)
    return found
