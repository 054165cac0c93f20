"""Figures on an MLflow server: one MLflow run for our run, and below it one per model and trial.

MLflow's own variables in the driver's environment give the server and the credentials, above all
`MLFLOW_TRACKING_URI`; the experiment is `MLFLOW_EXPERIMENT_NAME`, else `gangru_dist`. A job that is
started again finds the MLflow runs of the earlier job by their tag `gangru.key`.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from functools import cached_property
from typing import Any

from gangru_dist.base.errors import ConfigError
from gangru_dist.base.records import hash_json, read_code_version
from gangru_dist.config.identity import SETTINGS, to_dict, value_at
from gangru_dist.events.callbacks import Series
from gangru_dist.runs.run import Run

KEY = "gangru.key"
_MOST_PARAMS = 100
"""Parameters of one request; MLflow refuses more."""
_STATUS = {"failed": "FAILED", "diverged": "FAILED", "pruned": "KILLED"}
_ENVIRONMENT = {
    "MLFLOW_EXPERIMENT_NAME": "gangru_dist",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # seconds, not the minutes of its default
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


class Mlflow:
    """The callback `mlflow`."""

    def __init__(self, run: Run) -> None:
        """Raise ConfigError if there is no client or no server is named; asks nobody yet."""
        self.run = run
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        try:
            import mlflow
        except ImportError as error:
            raise ConfigError(
                "the callback mlflow needs its client: pip install gangru_dist[mlflow]."
            ) from error
        if not mlflow.is_tracking_uri_set():
            raise ConfigError(
                "the callback mlflow does not know its server: set MLFLOW_TRACKING_URI in the "
                "environment of the command, to http://HOST:PORT for instance."
            )
        self._mlflow, self._client = mlflow, mlflow.MlflowClient()
        self._ids: dict[str, str] = {}

    def on_figures(self, series: Series, step: int, figures: Mapping[str, float]) -> None:
        """Log the figures; a report's belong to the run itself."""
        self._log(self._find_series(series), figures, step)

    def on_done(
        self, series: Series, status: str, figures: Mapping[str, float], facts: Mapping[str, Any]
    ) -> None:
        """Log the whole's figures, what they belong to, and that it is over."""
        run_id = self._find_series(series)
        params = {name: x for name, x in facts.items() if series.job == "tune" and name != "reason"}
        tags = {f"gangru.{name}": x for name, x in facts.items() if name not in params}
        if series.job == "report":
            figures = {}  # logged already, at their step
        self._log(run_id, figures, params=params, tags={"gangru.status": status, **tags})
        self._client.set_terminated(run_id, _STATUS.get(status, "FINISHED"))

    def close(self) -> None:
        """Mark our run as no longer running."""
        if self._ids:
            self._client.set_terminated(self._run_id, "FINISHED")

    def _log(
        self,
        run_id: str,
        figures: Mapping[str, float],
        step: int = 0,
        *,
        params: Mapping[str, Any] | None = None,
        tags: Mapping[str, Any] | None = None,
    ) -> None:
        now, kinds = int(time.time() * 1000), self._mlflow.entities
        self._client.log_batch(
            run_id,
            metrics=[kinds.Metric(_rename(name), x, now, step) for name, x in figures.items()],
            params=[kinds.Param(_rename(name), str(x)) for name, x in (params or {}).items()],
            tags=[kinds.RunTag(name, str(x)) for name, x in (tags or {}).items()],
        )

    def _find_series(self, series: Series) -> str:
        """Return the id of the series' MLflow run."""
        parent = self._run_id
        if series.job == "report":
            return parent
        tags = {"mlflow.parentRunId": parent}
        return self._find_or_create([series.name, series.identity], series.name, tags)

    @cached_property
    def _run_id(self) -> str:
        """The id of the MLflow run that stands for our run."""
        settings = to_dict(self.run.cfg)
        keys = [key for key in SETTINGS if not key.startswith("tune.")]
        params = {key: value_at(settings, key) for key in keys}
        version = {f"gangru.{name}": value for name, value in read_code_version().items() if value}
        tags = {"gangru.storage": self.run.root.uri, **version}
        return self._find_or_create([], self.run.name, tags, params)

    def _find_or_create(
        self,
        key: list[str],
        name: str,
        tags: Mapping[str, str],
        params: Mapping[str, Any] | None = None,
    ) -> str:
        """Return the id of the key's MLflow run, which is created if the server has none.

        Parameters that it lacks are sent, also to one whose first job could not.
        """
        tag = hash_json([self.run.root.uri, self.run.name, *key])
        if tag not in self._ids:
            wanted = os.environ["MLFLOW_EXPERIMENT_NAME"]
            experiment = self._mlflow.set_experiment(wanted).experiment_id
            same = f"tags.`{KEY}` = '{tag}'"
            found = self._client.search_runs([experiment], same, max_results=1)
            if not found:
                found = [
                    self._client.create_run(experiment, tags={KEY: tag, **tags}, run_name=name)
                ]
            run_id, known = found[0].info.run_id, found[0].data.params
            left = [(name, x) for name, x in (params or {}).items() if _rename(name) not in known]
            for first in range(0, len(left), _MOST_PARAMS):
                self._log(run_id, {}, params=dict(left[first : first + _MOST_PARAMS]))
            self._ids[tag] = run_id
        return self._ids[tag]


def _rename(name: str) -> str:
    """Replace what MLflow does not allow in names."""
    return re.sub(r"[^\w\-. /]", "_", name)
