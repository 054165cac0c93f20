"""What a hyperparameter search found, read from its files alone."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

import pandas as pd
from markupsafe import Markup

from gangru_dist.report import text, tuning_figures
from gangru_dist.report.language import ENGLISH, Language, language, translatable
from gangru_dist.runs.run import Run
from gangru_dist.runs.search import SEARCH, Search, read_search

PAGE = "tuning.html"
_ROWS = 10


def write_page(run: Run) -> str:
    """Draw the search alone, before there is any factor to report; path or URI of the page."""
    words = language(run.cfg.report.language)
    found = read_search(run.tune)
    if found is None:
        raise FileNotFoundError(f"{run.tune.uri}/{SEARCH}")
    page = text.template("search.html", words).render(run=run.name, tuning=section(found, words))
    run.tune.write_bytes(PAGE, page.encode())
    return f"{run.tune.uri}/{PAGE}" if "?" not in run.tune.uri else run.tune.child(PAGE).uri


def trial_table(search: Search) -> pd.DataFrame:
    """One row a trial: number, status, objective, reached, best, epochs, seconds, settings.

    `reached` is the objective of a complete trial, else the running mean it was stopped at;
    `best` the highest objective so far. Settings are columns by their dotted keys, lists as text.
    """
    rows, best = [], float("nan")
    for trial in search.trials:
        objective = _number(trial.objective)
        best = max(best, objective) if best == best else objective
        rows.append(
            {
                "number": trial.number,
                "status": trial.status,
                "objective": objective,
                "mean_ic": _number(trial.mean_ic),
                "reached": _number(trial.reached),
                "best": best,
                "epochs": trial.epochs,
                "seconds": trial.seconds,
                **{key: _cell(trial.settings.get(key)) for key in search.record.space},
            }
        )
    columns = ["number", "status", "objective", "mean_ic", "reached", "best", "epochs", "seconds"]
    return pd.DataFrame(rows, columns=[*columns, *search.record.space])


def section(
    search: Search, words: Language = ENGLISH, reported: Collection[str] = ()
) -> dict[str, Any]:
    """All that the template of the section asks for; `reported`: refit days on the same page."""
    table = trial_table(search)
    figures = tuning_figures.pictures(table, search.record, words)
    return {
        "sentence": _sentence(search, table, words),
        "windows_sentence": _windows_sentence(search, words),
        "notes": _notes(search, table, words, reported),
        "pictures": [
            (name, words.gettext(title), words.gettext(caption))
            for name, title, caption in _PICTURES
            if name in figures
        ],
        "figures": {name: Markup(svg) for name, svg in figures.items()},
        "searched": list(search.record.space),
        "rows": _best_rows(table, list(search.record.space)),
    }


_ = translatable
_PICTURES = (
    (
        "search",
        _("Trials in the order they began"),
        _(
            "Objective of complete trials, the running mean at which others were stopped, and the "
            "best objective so far."
        ),
    ),
    (
        "slices",
        _("One parameter at a time"),
        _("Each trial's objective, or the mean it had reached, over each searched setting."),
    ),
    (
        "importance",
        _("Importance"),
        _(
            "Share of each setting in what sets the best trials apart (Optuna's PED-ANOVA; stopped "
            "trials count with the mean they had reached). Few trials make it a hint, no more."
        ),
    ),
)
_STATES = (_("complete"), _("pruned"), _("diverged"), _("failed"), _("running"))


def _sentence(search: Search, table: pd.DataFrame, words: Language) -> str:
    _ = words.gettext
    counts = table["status"].value_counts()
    told = _(", ").join(f"{counts[state]} {_(state)}" for state in _STATES if state in counts)
    start = _("%(trials)s trials (%(told)s), %(epochs)s predictor epochs.") % {
        "trials": len(table),
        "told": told,
        "epochs": int(table["epochs"].sum()),
    }
    best = search.record.best_trial
    rest = _best_sentence(table, best, words) if best is not None else _("None is complete yet.")
    return start + _(" ") + rest


def _best_sentence(table: pd.DataFrame, best: int, words: Language) -> str:
    _ = words.gettext
    reached = table.loc[table["number"] == best, "objective"].iloc[0]
    said = {"trial": best, "objective": text.signed(reached, 4)}
    configured = table[(table["number"] == 0) & table["objective"].notna()]
    if configured.empty:
        return _("Trial %(trial)s is best: objective %(objective)s.") % said
    said["configured"] = text.signed(configured.iloc[0]["objective"], 4)
    return (
        _(
            "Trial %(trial)s is best: objective %(objective)s, against %(configured)s of the "
            "configuration it started from."
        )
        % said
    )


def _windows_sentence(search: Search, words: Language) -> str:
    _ = words.gettext
    record = search.record
    sentence = _(
        "Objective: mean validation IC of the refit days %(windows)s less %(penalty)s times its "
        "standard deviation over them; no later day was looked at."
    ) % {"windows": ", ".join(record.windows), "penalty": f"{record.spread_penalty:g}"}
    if record.reported_first is None:
        return sentence
    first = _("Windows reported with the result begin %(first)s.")
    return sentence + _(" ") + first % {"first": record.reported_first}


def _notes(
    search: Search, table: pd.DataFrame, words: Language, reported: Collection[str]
) -> list[str]:
    _ = words.gettext
    record = search.record
    notes = []
    if record.reported_first is None:
        notes.append(
            _(
                "No window up to windows.last is after the refit days above: a report with this "
                "windows.last is of windows that were looked at. Raise it."
            )
        )
    both = sorted({*record.overlap, *(day for day in record.windows if day in reported)})
    if both:
        message = _("Tuned on and reported as well: %(days)s. What is reported of them flatters.")
        notes.append(message % {"days": ", ".join(both)})
    if record.incomparable:
        message = _(
            "Trials differ in %(settings)s, so their validation ICs do not compare strictly."
        )
        notes.append(message % {"settings": ", ".join(record.incomparable)})
    complete = table["objective"].notna().sum()
    if complete > 1:
        message = _(
            "The best of %(complete)s validation figures is too good by construction; the unseen "
            "windows decide."
        )
        notes.append(message % {"complete": complete})
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
