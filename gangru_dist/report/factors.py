"""Factor tables of anybody, put on a run's market: its universe, its neutralization, its days."""

from __future__ import annotations

import datetime as dt
import io
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from gangru_dist.base.errors import ConfigError, EvaluationError, shorten
from gangru_dist.base.storage import Storage, check_name, split_uri
from gangru_dist.config.settings import Exposure, RunConfig
from gangru_dist.evaluation.factor import respell_assets, to_factor_table
from gangru_dist.evaluation.market import AMOUNT
from gangru_dist.evaluation.summary import Note
from gangru_dist.maths.cross_section import FLAT
from gangru_dist.panel.block import PanelBlock
from gangru_dist.panel.manifest import Manifest
from gangru_dist.panel.store import read_block
from gangru_dist.panel.universe import select_universe
from gangru_dist.scoring.factor import to_factor

_logger = logging.getLogger(__name__)

UNIVERSES = ("run", "all")
EXPOSURES: tuple[Exposure, ...] = ("industry", "size")


@dataclass(frozen=True, kw_only=True)
class PlacedFactor:
    """A factor table on the panel's days and assets."""

    table: pd.DataFrame
    """Columns date, asset, factor, of the rows that are evaluated."""
    note: Note
    """What was done to it, for the reader."""
    coverage: pd.DataFrame
    """date, traded, universe, scored, missing_industry, missing_market_cap, neutralized."""


def read_factor_file(uri: str) -> pd.DataFrame:
    """The table of a parquet or CSV file, local or remote; columns as they are.

    Raises:
        EvaluationError: It is not there, or is no table.
    """
    folder, name = split_uri(uri)
    try:
        data = Storage(folder).read_bytes(name)
        if name.lower().endswith((".parquet", ".pq")):
            return pd.read_parquet(io.BytesIO(data))
        return pd.read_csv(io.BytesIO(data), compression="gzip" if name.endswith(".gz") else None)
    except FileNotFoundError:
        raise EvaluationError(f"--factor {uri}: there is no such file.") from None
    except (ValueError, OSError) as error:
        raise EvaluationError(
            f"--factor {uri} is no parquet or CSV table: {shorten(error)}. Give a table of date, "
            "asset and value."
        ) from error


def name_factors(factor: object) -> dict[str, pd.DataFrame]:
    """Name -> table of date, asset and factor; one table alone is called `factor`.

    Raises:
        EvaluationError: A table cannot be read as one, or there is none.
        StorageError: A name cannot be a folder's.
    """
    given = factor if isinstance(factor, Mapping) else {"factor": factor}
    if not given:
        raise EvaluationError("factor is empty. Give a table, or tables by name.")
    return {
        check_name(str(name), what="factor"): to_factor_table(one) for name, one in given.items()
    }


def read_factor_files(uris: Sequence[str]) -> dict[str, pd.DataFrame]:
    """The tables of files under the files' names; ConfigError if two have the same."""
    names = [PurePosixPath(uri).name.partition(".")[0] for uri in uris]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"--factor: two files are called {twice[0]!r}. Rename one of them.")
    return {name: read_factor_file(uri) for name, uri in zip(names, uris, strict=True)}


def read_factor_market(
    root: Storage, manifest: Manifest, cfg: RunConfig, tables: Mapping[str, pd.DataFrame]
) -> PanelBlock:
    """The panel's block from the first factor's day on, and the days before, for the universe.

    Raises:
        EvaluationError: The factors have no day of the panel.
    """
    calendar, firsts = manifest.calendar, [one["date"].min() for one in tables.values()]
    first = int(np.searchsorted(calendar, np.datetime64(min(firsts), "D")))
    if first == len(calendar):
        raise EvaluationError(
            f"the factor begins {min(firsts):%Y-%m-%d}, after the panel's last day, "
            f"{calendar[-1]}. Add later bars with `gangru panel`."
        )
    start, end = calendar[max(0, first - cfg.samples.lookback)], calendar[-1]
    return read_block(
        root,
        manifest,
        start=start.astype(dt.date),
        end=end.astype(dt.date),
        features=tuple({AMOUNT} & set(manifest.features)),
        trading=True,
    )


def place_factor(
    table: pd.DataFrame,
    block: PanelBlock,
    cfg: RunConfig,
    *,
    universe: str = "run",
    neutralize: Sequence[str] = (),
    start: dt.date | None = None,
) -> PlacedFactor:
    """Put a factor table on the panel: rows outside the universe and before `start` are left out.

    Args:
        table: Of `to_factor_table`.
        block: Of `read_factor_market`.
        cfg: The run's `universe`, `samples.lookback`, `factor.members` and `factor.winsorize_mad`.
        universe: `run`: what the run scores each day; `all`: every asset of the panel.
        neutralize: Exposures to remove: `industry`, `size`, both or none. The factor is then
            winsorized and z-scored, before and after, as a run's is (`to_factor`); a day of which
            more than half of the values are equal is not winsorized.
        start: First day; None = the table's.

    Raises:
        EvaluationError: No row is left, or an argument is none of those above.
    """
    wrong = sorted(set(neutralize) - set(EXPOSURES))
    if universe not in UNIVERSES or wrong:
        raise EvaluationError(
            f"universe={universe!r}, neutralize={list(neutralize)}: universe is run or all, "
            "neutralize any of industry and size."
        )
    table = respell_assets(table, block.assets)
    if start is not None:
        table = table[table["date"] >= pd.Timestamp(start)]
    values = _scatter(table, block)
    known = int(np.isfinite(values).sum())
    members = block.traded | np.isfinite(values)
    if universe == "run":
        scored = replace(cfg.universe, members=cfg.factor.members)
        members = select_universe(block, scored, cfg.samples.lookback)
        values = np.where(members, values, np.nan)
    kept = int(np.isfinite(values).sum())
    given = int(table["factor"].notna().sum())
    if not kept:
        raise EvaluationError(
            f"none of the {given} factor values is of the panel's days and assets"
            f"{' and in the universe' if known else ''}: the panel has {block.dates[0]} to "
            f"{block.dates[-1]} and assets such as {block.assets[0]}, the factor "
            f"{', '.join(table['asset'].head(2)) or 'no row'}."
        )
    if given > known:
        _logger.warning("factor_rows_unknown left_out=%d given=%d", given - known, given)
    neutralized = np.full(len(values), "", dtype=object)
    if removed := tuple(name for name in EXPOSURES if name in neutralize):
        rule = replace(cfg.factor, neutralize=removed, min_assets=2)
        factor = to_factor(
            values, block.industry, block.market_cap, rule, flat=FLAT, clip_tied=False
        )
        values = factor.factor
        neutralized[:] = [factor.name_exposures(day) for day in range(len(values))]
    rows, columns = np.nonzero(np.isfinite(values))
    placed = pd.DataFrame(
        {
            "date": block.dates[rows].astype("datetime64[s]"),
            "asset": block.assets[columns],
            "factor": values[rows, columns],
        }
    )
    return PlacedFactor(
        table=placed,
        note=_describe_placement(given, known, kept, universe),
        coverage=_tabulate(values, members, block, neutralized),
    )


def _describe_placement(given: int, known: int, kept: int, universe: str) -> Note:
    """How many of the given values the panel knows, and how many are judged."""
    facts = {"given": str(given), "unknown": str(given - known)}
    if universe == "all":
        return Note(
            "Not of a run: a table of %(given)s values; %(unknown)s are of days or assets that "
            "the panel lacks, and left out; all other assets count, in the universe or not.",
            facts,
        )
    return Note(
        "Not of a run: a table of %(given)s values; %(unknown)s are of days or assets that the "
        "panel lacks, %(outside)s outside the universe of this run's settings, and left out.",
        facts | {"outside": str(known - kept)},
    )


def _scatter(table: pd.DataFrame, block: PanelBlock) -> Float[np.ndarray, "D N"]:
    """The values at their days and assets; those of others are left out.

    Raises:
        EvaluationError: A pair is there twice.
    """
    table = table.dropna(subset="factor")
    twice = table.duplicated(["date", "asset"])
    if twice.any():
        row = table[twice].iloc[0]
        raise EvaluationError(
            f"the factor has {int(twice.sum())} repeated pairs of date and asset, first "
            f"{row['date']:%Y-%m-%d} {row['asset']}. Keep one row of each."
        )
    rows = pd.DatetimeIndex(block.dates).get_indexer(pd.Index(table["date"]))
    columns = pd.Index(block.assets).get_indexer(pd.Index(table["asset"]))
    known = (rows >= 0) & (columns >= 0)
    values = np.full((len(block.dates), len(block.assets)), np.nan)
    values[rows[known], columns[known]] = table["factor"].to_numpy()[known]
    return values


def _tabulate(
    values: np.ndarray, members: np.ndarray, block: PanelBlock, neutralized: np.ndarray
) -> pd.DataFrame:
    """Coverage by day, of the days with a value."""
    scored = np.isfinite(values)
    days = scored.any(axis=1)
    counts: dict[str, Any] = {
        "date": block.dates.astype("datetime64[s]"),
        "traded": block.traded.sum(axis=1),
        "universe": members.sum(axis=1),
        "scored": scored.sum(axis=1),
        "missing_industry": (scored & (block.industry < 0)).sum(axis=1),
        "missing_market_cap": (scored & ~(block.market_cap > 0)).sum(axis=1),
        "neutralized": neutralized,
    }
    table: pd.DataFrame = pd.DataFrame(counts)[days].reset_index(drop=True)
    return table
