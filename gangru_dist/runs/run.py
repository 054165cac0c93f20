"""One run: where its things are, which configuration it belongs to, and what it has finished.

    <storage>/runs/<name>/config.json    the claim: the whole configuration, version, commit
                          windows/       models
                          factor/        the factor table
                          tune/          a search
                          report/        page, metrics, tables

The name belongs to the configuration it was first used with. Training, scoring and reporting
check that before they write, whoever calls them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from pydantic import ValidationError

from gangru_dist import settings
from gangru_dist.config import RunConfig, from_dict, run_settings, to_dict, with_precision
from gangru_dist.errors import ConfigError, GangruError
from gangru_dist.lineage import code_version
from gangru_dist.runs.model import ModelRecord
from gangru_dist.runs.records import find_record, write_record
from gangru_dist.storage import Storage, checked_name

CLAIM, MODEL, WEIGHTS = "config.json", "model.json", "model.safetensors"
WINDOWS, CHECKPOINTS, FACTOR, TENSORBOARD = "windows", "checkpoints", "factor", "tensorboard"
_MODEL_FILE = re.compile(rf"{WINDOWS}/(?P<window>[^/]+)/seed-(?P<seed>\d+)/{re.escape(MODEL)}")


@dataclass(frozen=True, kw_only=True)
class Claim:
    """Content of `config.json`: for which configuration a run's name was taken, and by which code.

    The configuration is a version's own: `settings` tells whether this version knows it.
    """

    run: str = ""
    package_version: str | None = None
    commit: str | None = None
    config: dict[str, Any]

    def settings(self) -> RunConfig | None:
        """The configuration; None if it is of a version with other settings."""
        try:
            return from_dict(self.config)
        except (ValidationError, GangruError):
            return None


@dataclass(frozen=True)
class Run:
    """A run of a storage, under a configuration."""

    root: Storage
    """Storage root: panel, runs, everything."""
    name: str
    cfg: RunConfig

    def __post_init__(self) -> None:
        """Raise StorageError if the name cannot be a folder's."""
        checked_name(self.name, what="--run")

    @cached_property
    def folder(self) -> Storage:
        """`<storage>/runs/<name>`."""
        return run_folder(self.root, self.name)

    @cached_property
    def factor(self) -> Storage:
        """Where the factor table is."""
        return self.folder.child(FACTOR)

    @cached_property
    def report(self) -> Storage:
        """Where page, metrics and tables are."""
        return self.folder.child("report")

    @cached_property
    def tune(self) -> Storage:
        """Where a search of this name is."""
        return self.folder.child("tune")

    def model_folder(self, window: str, seed: int) -> str:
        """Place of one model below `folder`."""
        return f"{WINDOWS}/{window}/seed-{seed}"

    def model(self, window: str, seed: int) -> ModelRecord | None:
        """A finished model's record; None if it is not trained, or its weights are gone.

        Raises:
            StorageError: Its `model.json` is damaged.
        """
        place = self.model_folder(window, seed)
        found = find_record(ModelRecord, self.folder, f"{place}/{MODEL}")
        return found if found and self.folder.exists(f"{place}/{WEIGHTS}") else None

    def models(self) -> dict[tuple[str, int], ModelRecord]:
        """Every finished model by (window, seed), ascending; as `model`."""
        files = set(self.folder.list_files(WINDOWS))
        places = [
            (file["window"], int(file["seed"]))
            for file in map(_MODEL_FILE.fullmatch, files)
            if file
        ]
        found = {}
        for place in sorted(places):
            folder = self.model_folder(*place)
            model = find_record(ModelRecord, self.folder, f"{folder}/{MODEL}")
            if model is not None and f"{folder}/{WEIGHTS}" in files:  # else it is trained again
                found[place] = model
        return found

    def claimed(self) -> Claim | None:
        """What the name was taken for; None if it is free.

        Raises:
            StorageError: `config.json` is damaged.
        """
        return find_record(Claim, self.folder, CLAIM)

    def as_claimed(self) -> Run:
        """The same with what `training.precision=auto` stands for since the run's first start.

        Raises:
            StorageError: `config.json` is damaged.
        """
        if self.cfg.training.precision != "auto":
            return self
        there = self.claimed()
        old = there.settings() if there else None
        return replace(self, cfg=with_precision(self.cfg, old.training.precision)) if old else self

    def claim(self, *, overwrite: bool = False) -> None:
        """Take the name for the configuration, or check that it has been.

        Which refit days a run covers and what resources it uses may change from call to call.

        Raises:
            ConfigError: The name is taken by another configuration, and not `overwrite`.
            StorageError: The folder cannot be written, or its `config.json` is damaged.
        """
        changed = [] if overwrite else self._changed()
        if changed:
            raise ConfigError(
                f"run {self.name!r} in {self.root.uri} has another configuration: "
                f"{'; '.join(changed)}. Give this command the run's own --preset, --config and "
                "--set; or a new run another --run; or replace the old one with --overwrite."
            )
        config = to_dict(self.cfg)
        write_record(self.folder, CLAIM, Claim(run=self.name, **code_version(), config=config))

    def require(self) -> None:
        """Check that an earlier job made this run.

        Raises:
            ConfigError: It did not; the message names the runs there are.
        """
        if self.folder.exists(CLAIM):
            return
        files = (name.split("/") for name in self.root.list_files("runs"))
        names = {parts[1] for parts in files if parts[2:] == [CLAIM]}
        raise ConfigError(
            f"there is no run {self.name!r} in {self.root.uri}; there are: "
            f"{', '.join(sorted(names)) or 'none'}. Train it first (for a report, score it too), "
            "or correct --run and --storage."
        )

    def _changed(self) -> list[str]:
        """What differs from the configuration the name was taken for; empty if it is free."""
        there = self.claimed()
        if there is None:
            return []
        old = there.settings()
        if old is None:
            return [f"{CLAIM} of package version {there.package_version} is not ours"]
        return settings.difference(run_settings(old), run_settings(self.cfg))


def run_folder(root: Storage, name: str) -> Storage:
    """`<storage>/runs/<name>`, also of a run whose configuration does not matter."""
    return root.child("runs", name)
