"""What a hyperparameter search found, read from its files alone."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pandas as pd
from markupsafe import Markup

from gangru_dist.report import text, tuning_figures
from gangru_dist.storage import Storage

PAGE = "tuning.html"
_ROWS = 10


@dataclass(frozen=True, kw_only=True)
class Search:
    """`tune/search.json`, and every `tune/trials/*.json` by number."""

    about: dict[str, Any]
    trials: list[dict[str, Any]]


def read_search(run: Storage) -> Search | None:
    """The search of a run; None if it has none."""
    if not run.exists("tune/search.json"):
        return None
    names = [name for name in run.list_files("tune/trials") if name.endswith(".json")]
    trials = [dict(run.read_json(name)) for name in sorted(names)]
    return Search(about=dict(run.read_json("tune/search.json")), trials=trials)


def write_page(root: Storage, run: str) -> str:
    """Draw the search alone, before there is any factor to report; path or URI of the page."""
    folder = root.child("runs", run)
    found = read_search(folder)
    if found is None:
        raise FileNotFoundError(f"{folder.uri}/tune/search.json")
    page = text.template("search.html").render(run=run, tuning=section(found))
    place = folder.child("tune")
    place.write_bytes(PAGE, page.encode())
    return f"{place.uri}/{PAGE}" if "?" not in place.uri else place.child(PAGE).uri


def trial_table(search: Search) -> pd.DataFrame:
    """One row a trial: number, status, objective, reached, best, epochs, seconds, settings.

    `reached` is the objective of a complete trial, else the running mean it was stopped at;
    `best` the highest objective so far. Settings are columns by their dotted keys, lists as text.
    """
    rows, best = [], float("nan")
    for trial in search.trials:
        objective = _number(trial["objective"])
        best = max(best, objective) if best == best else objective
        reached = trial["mean_ic"] if trial["objective"] is None else trial["objective"]
        rows.append(
            {
                "number": trial["number"],
                "status": trial["status"],
                "objective": objective,
                "mean_ic": _number(trial["mean_ic"]),
                "reached": _number(reached),
                "best": best,
                "epochs": trial["epochs"],
                "seconds": trial["seconds"],
                **{key: _cell(trial["settings"].get(key)) for key in search.about["space"]},
            }
        )
    columns = ["number", "status", "objective", "mean_ic", "reached", "best", "epochs", "seconds"]
    return pd.DataFrame(rows, columns=[*columns, *search.about["space"]])


def section(search: Search) -> dict[str, Any]:
    """All that the template of the section asks for."""
    table = trial_table(search)
    figures = tuning_figures.pictures(table, search.about)
    return {
        "sentence": _sentence(search, table),
        "windows_sentence": _windows_sentence(search),
        "notes": _notes(search, table),
        "pictures": [picture for picture in _PICTURES if picture[0] in figures],
        "figures": {name: Markup(svg) for name, svg in figures.items()},
        "searched": list(search.about["space"]),
        "rows": _best_rows(table, list(search.about["space"])),
    }


_PICTURES = (
    (
        "search",
        "Trials in the order they began",
        "Objective of complete trials, the running mean at which others were stopped, and the "
        "best objective so far.",
    ),
    (
        "slices",
        "One parameter at a time",
        "Each trial's objective, or the mean it had reached, over each searched setting.",
    ),
    (
        "importance",
        "Importance",
        "Share of each setting in what sets the best trials apart (Optuna's PED-ANOVA; stopped "
        "trials count with the mean they had reached). Few trials make it a hint, no more.",
    ),
)


def _sentence(search: Search, table: pd.DataFrame) -> str:
    counts = table["status"].value_counts()
    told = ", ".join(f"{counts[name]} {name}" for name in _ORDER if name in counts)
    start = f"{len(table)} trials ({told}), {int(table['epochs'].sum())} predictor epochs."
    best = search.about["best_trial"]
    if best is None:
        return f"{start} None is complete yet."
    row = table[table["number"] == best].iloc[0]
    configured = table[(table["number"] == 0) & table["objective"].notna()]
    beside = (
        f", against {text.signed(configured.iloc[0]['objective'], 4)} of the configuration it "
        "started from"
        if len(configured)
        else ""
    )
    return f"{start} Trial {best} is best: objective {text.signed(row['objective'], 4)}{beside}."


_ORDER = ("complete", "pruned", "diverged", "failed", "running")


def _windows_sentence(search: Search) -> str:
    about = search.about
    return (
        f"Objective: mean validation IC of the refit days {', '.join(about['windows'])} less "
        f"{about['spread_penalty']:g} times its standard deviation over them; no later day was "
        f"looked at. Windows reported with the result begin {about['reported_first']}."
    )


def _notes(search: Search, table: pd.DataFrame) -> list[str]:
    notes = []
    if search.about["overlap"]:
        listed = ", ".join(search.about["overlap"])
        notes.append(f"Tuned on and reported as well: {listed}. What is reported of them flatters.")
    if search.about["incomparable"]:
        listed = ", ".join(search.about["incomparable"])
        notes.append(f"Trials differ in {listed}, so their validation ICs do not compare strictly.")
    complete = table["objective"].notna().sum()
    if complete > 1:
        notes.append(
            f"The best of {complete} validation figures is too good by construction; the unseen "
            "windows decide."
        )
    return notes


def _best_rows(table: pd.DataFrame, keys: list[str]) -> list[dict[str, Any]]:
    complete = table[table["objective"].notna()].sort_values("objective", ascending=False)
    chosen = pd.concat([complete.head(_ROWS), table[table["number"] == 0]])
    rows = chosen.drop_duplicates("number").to_dict("records")
    return [
        {**{str(k): v for k, v in row.items()}, "cells": [_shown(row[key]) for key in keys]}
        for row in rows
    ]


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, int | float) else str(value)


def _cell(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, list) else value


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)
