"""One run: its folders, the configuration that its name belongs to, and its finished models.

    <storage>/runs/<name>/config.json    the claim: the whole configuration, version, commit
                          windows/       models
                          factor/        the factor table
                          tune/          a search
                          report/        page, metrics, tables

A run's name belongs to the configuration that it was first used with. Training, scoring and
reporting check this before they write.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from pydantic import ValidationError

from gangru_dist.base.errors import ConfigError, GangruError
from gangru_dist.base.filesystems import Place, to_uri
from gangru_dist.base.records import Describable, find_record, read_code_version, write_record
from gangru_dist.base.storage import READERS, Storage, check_name
from gangru_dist.config import presets, sources
from gangru_dist.config.identity import from_dict, run_settings, to_dict, with_precision
from gangru_dist.config.settings import RunConfig
from gangru_dist.runs.model import ModelRecord

CLAIM, MODEL, WEIGHTS = "config.json", "model.json", "model.safetensors"
WINDOWS, CHECKPOINTS, FACTOR, TENSORBOARD = "windows", "checkpoints", "factor", "tensorboard"
MODEL_FILE = re.compile(rf"{WINDOWS}/(?P<window>[^/]+)/seed-(?P<seed>\d+)/{re.escape(MODEL)}")
"""Path of a finished model's record, below the run's folder."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """Content of `config.json`: configuration and code that a run's name was taken with.

    Another version's configuration may have other settings; see `parse_settings`.
    """

    run: str = ""
    package_version: str | None = None
    commit: str | None = None
    config: dict[str, Any]

    def parse_settings(self) -> RunConfig | None:
        """The configuration; None if this process lacks its settings or code that it names."""
        try:
            return from_dict(self.config, stored=True)
        except (ValidationError, GangruError):
            return None

    def list_differences(self, cfg: RunConfig) -> list[str]:
        """How the configuration differs from this one, given the panel."""
        own = self.parse_settings()
        if own is None:
            return [
                f"{CLAIM} was written by package version {self.package_version}, or names code "
                "that this command was not given"
            ]
        return sources.difference(run_settings(own), run_settings(cfg))


@dataclass(frozen=True, repr=False)
class Run(Describable):
    """A named run in a storage, with its configuration."""

    root: Storage
    """Storage root, with the panel and all runs."""
    name: str
    cfg: RunConfig

    def __post_init__(self) -> None:
        """Raise StorageError if the name cannot be a folder name."""
        check_name(self.name, what="--run")

    def describe(self) -> dict[str, object]:
        """Where it is, and what its models are."""
        kind = {"variant": self.cfg.variant, "predictor": self.cfg.predictor}
        return {"name": self.name, "storage": self.root.uri, **kind}

    @cached_property
    def folder(self) -> Storage:
        """`<storage>/runs/<name>`."""
        return run_folder(self.root, self.name)

    @cached_property
    def factor(self) -> Storage:
        """Folder of the factor table."""
        return self.folder.child(FACTOR)

    @cached_property
    def report(self) -> Storage:
        """Folder of page, metrics and tables."""
        return self.folder.child("report")

    @cached_property
    def tune(self) -> Storage:
        """Folder of the search with this name."""
        return self.folder.child("tune")

    def model_folder(self, window: str, seed: int) -> str:
        """Path of one model, below `folder`."""
        return f"{WINDOWS}/{window}/seed-{seed}"

    def read_model(self, window: str, seed: int) -> ModelRecord | None:
        """Record of a finished model; None if it is not trained or its weights are gone.

        Raises:
            StorageError: Its `model.json` is damaged.
        """
        place = self.model_folder(window, seed)
        found = find_record(ModelRecord, self.folder, f"{place}/{MODEL}")
        return found if found and self.folder.exists(f"{place}/{WEIGHTS}") else None

    def list_models(self) -> list[tuple[str, int]]:
        """(window, seed) of all finished models, ascending; nothing but a listing is read."""
        names = set(self.folder.list_files(WINDOWS))
        found = [match for match in map(MODEL_FILE.fullmatch, names) if match]
        places = sorted((match["window"], int(match["seed"])) for match in found)
        return [place for place in places if f"{self.model_folder(*place)}/{WEIGHTS}" in names]

    def read_models(
        self, windows: Collection[str] | None = None
    ) -> dict[tuple[str, int], ModelRecord]:
        """Finished models by (window, seed), ascending: of some windows, or all of them.

        Raises:
            StorageError: A `model.json` is damaged.
        """

        def read(place: tuple[str, int]) -> ModelRecord | None:
            return find_record(ModelRecord, self.folder, f"{self.model_folder(*place)}/{MODEL}")

        places = [one for one in self.list_models() if windows is None or one[0] in windows]
        with ThreadPoolExecutor(READERS) as pool:
            found = dict(zip(places, pool.map(read, places), strict=True))
        # None: deleted meanwhile, to be trained again
        return {place: model for place, model in found.items() if model is not None}

    def read_claim(self) -> Claim | None:
        """Content of `config.json`; None if the name is free.

        Raises:
            StorageError: `config.json` is damaged.
        """
        return find_record(Claim, self.folder, CLAIM)

    def read_settings(self) -> RunConfig | None:
        """The configuration that the name was taken for; None if it is free.

        Raises:
            ConfigError: This version does not know it, or it names code that this job was not
                given by its user.
            StorageError: `config.json` is damaged.
        """
        there = self.read_claim()
        if there is None:
            return None
        own = there.parse_settings()
        if own is None:
            raise ConfigError(
                f"{CLAIM} of run {self.name!r} in {self.root.uri} is of package version "
                f"{there.package_version}, or names code of your own. Give the run's --preset, "
                "--config and --set."
            )
        return own

    def with_claimed_precision(self) -> Run:
        """The run with `training.precision=auto` replaced by its value at the run's first start.

        Raises:
            StorageError: `config.json` is damaged.
        """
        if self.cfg.training.precision != "auto":
            return self
        there = self.read_claim()
        old = there.parse_settings() if there else None
        return replace(self, cfg=with_precision(self.cfg, old.training.precision)) if old else self

    def claim(self, *, overwrite: bool = False) -> None:
        """Take the name for this configuration, or check that it already belongs to it.

        The refit days and the resources may differ from call to call. A job claims when all that
        it needs is there, so that one that fails changes no run.

        Raises:
            ConfigError: The name belongs to another configuration, without `overwrite`.
            StorageError: The folder cannot be written, or its `config.json` is damaged.
        """
        self.check_claim(overwrite=overwrite)
        config = to_dict(self.cfg)
        write_record(self.folder, CLAIM, Claim(run=self.name, **read_code_version(), config=config))

    def check_claim(self, *, overwrite: bool = False) -> None:
        """Check that `claim` may take the name; errors as there."""
        there = None if overwrite else self.read_claim()
        if there and (changed := there.list_differences(self.cfg)):
            raise ConfigError(
                f"run {self.name!r} in {self.root.uri} has another configuration: "
                f"{'; '.join(changed)}. Use the run's own --preset, --config and --set, give a new "
                "run another --run, or give this run these settings with --overwrite: what they "
                "change is made anew, models too."
            )

    def check_exists(self) -> None:
        """Check that an earlier job made this run.

        Raises:
            ConfigError: There is no such run; the message lists the runs there are.
        """
        if not self.folder.exists(CLAIM):
            raise ConfigError(
                f"there is no run {self.name!r} in {self.root.uri}; there are: "
                f"{', '.join(list_runs(self.root)) or 'none'}. Train it first (for a report, score "
                "it too), or correct --run and --storage."
            )


def require_run(run: object) -> None:
    """Raise ConfigError if this is no run."""
    if not isinstance(run, Run):
        raise ConfigError(
            f"the run is a {type(run).__name__}. Open one with open_run(storage, name), and give "
            "that."
        )


def run_folder(root: Storage, name: str) -> Storage:
    """`<storage>/runs/<name>`, where the configuration does not matter."""
    return root.child("runs", name)


def list_runs(root: Storage) -> list[str]:
    """Names of all runs in a storage, sorted."""
    files = (name.split("/") for name in root.list_files("runs"))
    return sorted(parts[1] for parts in files if parts[2:] == [CLAIM])


def load_settings(
    root: Storage,
    name: str | None,
    preset: str | None = None,
    file: str | Sequence[str] | None = None,
    overrides: Sequence[str] = (),
) -> tuple[str, RunConfig, RunConfig]:
    """Source of a run's settings, those settings, and the same with `overrides` applied.

    An existing run that is given without preset and file keeps its own settings.

    Raises:
        ConfigError: As `config.sources.load` and `Run.read_settings`.
    """
    if name and not (preset or file):
        own = Run(root, name, RunConfig()).read_settings()
        if own is not None:
            return "settings=its_own", own, sources.override(own, overrides)
    preset = preset or "default"
    cfg = sources.load(preset, file, overrides)
    return f"preset={preset}", presets.ALL[preset](), cfg


def open_run(
    storage: Place,
    name: str | None = None,
    *,
    preset: str | None = None,
    config: Place | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Run:
    """A run, new or existing; nothing is written.

    Args:
        storage: Root folder or URI, as `--storage`.
        name: As `--run`; None = the preset's name.
        preset: As `--preset`; None = the settings of the existing run, else `default`.
        config: Path or URI of a TOML file.
        settings: Dotted key -> value, such as `{"training.epochs": 5}`.

    Raises:
        ConfigError: Unknown preset or key, wrong type, out of range, impossible combination.
        StorageError: The URI cannot be used.
    """
    root = Storage(storage)
    file = None if config is None else to_uri(config, what="config")
    is_keyed = isinstance(settings or {}, Mapping)
    if not is_keyed or not all(isinstance(key, str) for key in settings or ()):
        raise ConfigError(
            f"settings={settings!r}: give a dictionary of dotted keys, such as "
            '{"training.epochs": 5}.'
        )
    _, _, cfg = load_settings(root, name, preset, file)
    if settings:
        cfg = sources.with_values(cfg, settings, "settings")
    return Run(root, name or preset or "default", cfg)
