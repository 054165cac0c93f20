"""What is known of a run beside its factor, read from its folder and the panel's."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from gangru_dist.config import RunConfig, to_dict
from gangru_dist.panel.quality import QUALITY
from gangru_dist.panel.store import Manifest
from gangru_dist.report import training, tuning
from gangru_dist.scoring.table import covered_days, factor_storage
from gangru_dist.storage import Storage


@dataclass(frozen=True, kw_only=True)
class Sources:
    """What is known of a run beside its factor."""

    run: str
    cfg: RunConfig
    manifest: dict[str, Any]
    """Of the panel, without its long lists."""
    quality: dict[str, Any]
    """`panel/quality.json`; empty if there is none."""
    claimed: dict[str, Any]
    """`config.json` of the run: version and commit; empty if there is none."""
    variants: dict[str, str]
    """What each run shown trains, gan_gru or gru; empty text if unknown."""
    quantiles: dict[str, int]
    """Of each run's factor table: a compared run keeps its own."""
    models: list[dict[str, Any]]
    """Every finished model's `model.json`."""
    search: tuning.Search | None
    """The run's hyperparameter search, if there is one."""
    coverage: pd.DataFrame
    """date, traded, universe, scored, missing_industry, missing_market_cap, neutralized."""

    @property
    def settings(self) -> dict[str, Any]:
        """The configuration; bars and buckets are the panel's, whatever this job was told."""
        values = to_dict(self.cfg)
        values["bars"] = self.manifest["source"].get("bars", values["bars"])
        values["panel"]["buckets"] = self.manifest["buckets"]
        return values


def read_sources(root: Storage, manifest: Manifest, names: list[str], cfg: RunConfig) -> Sources:
    """What is known of the first of the runs, and what the others are."""
    run = names[0]
    folder = root.child("runs", run)
    claims = {name: _json_if_there(root.child("runs", name), "config.json") for name in names}
    days = [asdict(day) for day in covered_days(factor_storage(root, run)).values()]
    columns = ["date", "traded", "universe", "ranked", "missing_industry", "missing_market_cap"]
    coverage = pd.DataFrame(days)[[*columns, "neutralized"]].rename(columns={"ranked": "scored"})
    coverage["date"] = pd.to_datetime(coverage["date"])
    long_lists = ("calendar", "files", "months")
    return Sources(
        run=run,
        cfg=cfg,
        manifest={k: v for k, v in manifest.to_json().items() if k not in long_lists},
        quality=_json_if_there(root.child("panel"), QUALITY),
        claimed=claims[run],
        variants={
            name: claim.get("config", {}).get("variant", "") for name, claim in claims.items()
        },
        quantiles={
            name: cfg.factor.quantiles if name == run else _quantiles(claim, cfg)
            for name, claim in claims.items()
        },
        models=training.read_models(folder),
        search=tuning.read_search(folder),
        coverage=coverage,
    )


def _quantiles(claim: dict[str, Any], cfg: RunConfig) -> int:
    """Of a run's `config.json`; `cfg`'s own if it does not say."""
    return int(claim.get("config", {}).get("factor", {}).get("quantiles", cfg.factor.quantiles))


def _json_if_there(folder: Storage, name: str) -> dict[str, Any]:
    return dict(folder.read_json(name)) if folder.exists(name) else {}
