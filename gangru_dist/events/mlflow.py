"""Figures on an MLflow server: one MLflow run for our run, and one below it a model and a trial.

Server and credentials are MLflow's own variables in the driver's environment, `MLFLOW_TRACKING_URI`
first; the experiment is `MLFLOW_EXPERIMENT_NAME`, else `gangru_dist`. A job that comes again finds
the MLflow runs of the job before by their tag `gangru.key`.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gangru_dist.base.errors import ConfigError
from gangru_dist.base.lineage import code_version
from gangru_dist.config.identity import to_dict
from gangru_dist.events.callbacks import Series, digest
from gangru_dist.runs.run import Run

KEY = "gangru.key"
_STATUS = {"failed": "FAILED", "diverged": "FAILED", "pruned": "KILLED"}
_PARAMS_A_REQUEST = 100
_ENVIRONMENT = {
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
        self._entities, self._client = mlflow.entities, mlflow.MlflowClient()
        self._ids: dict[str, str] = {}

    def on_figures(self, series: Series, step: int, figures: Mapping[str, float]) -> None:
        """Log the figures; a report's belong to the run itself."""
        self._log(self._of(series), figures, step)

    def on_done(
        self, series: Series, status: str, figures: Mapping[str, float], facts: Mapping[str, Any]
    ) -> None:
        """Log the whole's figures, what they belong to, and that it is over."""
        place = self._of(series)
        is_trial = series.job == "tune"
        params = {name: x for name, x in facts.items() if is_trial and name != "reason"}
        tags = {f"gangru.{name}": x for name, x in facts.items() if name not in params}
        if series.job == "report":
            figures = {}  # logged already, at their step
        self._log(place, figures, params=params, tags={"gangru.status": status, **tags})
        self._client.set_terminated(place, _STATUS.get(status, "FINISHED"))

    def close(self) -> None:
        """Mark our run as no longer running."""
        if self._ids:
            self._client.set_terminated(self._whole(), "FINISHED")

    def _log(
        self,
        place: str,
        figures: Mapping[str, float],
        step: int = 0,
        *,
        params: Mapping[str, Any] | None = None,
        tags: Mapping[str, Any] | None = None,
    ) -> None:
        now, kinds = int(time.time() * 1000), self._entities
        metrics = [kinds.Metric(_name(n), x, now, step) for n, x in figures.items()]
        named = [kinds.RunTag(name, str(value)) for name, value in (tags or {}).items()]
        self._client.log_batch(place, metrics=metrics, tags=named)
        given = [kinds.Param(_name(name), str(value)) for name, value in (params or {}).items()]
        for start in range(0, len(given), _PARAMS_A_REQUEST):
            self._client.log_batch(place, params=given[start : start + _PARAMS_A_REQUEST])

    def _of(self, series: Series) -> str:
        """Id of the series' MLflow run."""
        whole = self._whole()
        if series.job == "report":
            return whole
        tags = {"mlflow.parentRunId": whole}
        return self._run([series.name, series.identity], series.name, tags)

    def _whole(self) -> str:
        """Id of the MLflow run that stands for our run."""
        cfg = self.run.cfg
        tags = {"gangru.storage": self.run.root.uri, **_version()}
        return self._run([], self.run.name, tags, params=dict(_flat(to_dict(cfg))))

    def _run(
        self,
        parts: Sequence[str],
        name: str,
        tags: Mapping[str, str],
        params: Mapping[str, Any] | None = None,
    ) -> str:
        """Id of the MLflow run of this key, from the server if it is there, else a new one."""
        key = digest([self.run.root.uri, self.run.name, *parts])
        if key not in self._ids:
            experiment = self._experiment()
            there = self._client.search_runs([experiment], f"tags.`{KEY}` = '{key}'", max_results=1)
            if there:
                self._ids[key] = there[0].info.run_id
            else:
                made = self._client.create_run(experiment, tags={KEY: key, **tags}, run_name=name)
                self._ids[key] = made.info.run_id
                self._log(self._ids[key], {}, params=params)
        return self._ids[key]

    def _experiment(self) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "gangru_dist")
        there = self._client.get_experiment_by_name(name)
        return str(there.experiment_id if there else self._client.create_experiment(name))


def _version() -> dict[str, str]:
    return {f"gangru.{name}": value for name, value in code_version().items() if value}


def _name(name: str) -> str:
    """With what MLflow allows in names."""
    return re.sub(r"[^\w\-. /]", "_", name)


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted key and value of every setting but those of a search."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            if name != "tune":
                yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
