"""One line of the corpus: an input, what is wrong with it, and what must come of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from tests.bars.corpus_market import Change, Files, Frame, market, one_file

Outcome = Literal["refused", "set aside", "noted", "same panel", "accepted"]


@dataclass(frozen=True, kw_only=True)
class Case:
    """An input of the corpus."""

    wrong: str
    """What is wrong, or may look so."""
    make: Callable[[], Files]
    """Its files by name."""
    outcome: Outcome
    """`same panel`: read as it was meant; `accepted`: right, though it is another market. Neither
    sets a row aside or leaves a note."""
    words: str = ""
    """Of the error; or the reason or note under which rows are counted."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Of `bars`, beside `price_limits` = ashare."""


def case(
    wrong: str,
    change: Change,
    outcome: Outcome,
    words: str = "",
    layout: Callable[[Frame], Files] = one_file,
    **settings: Any,
) -> Case:
    """The market, changed and written down."""
    return Case(
        wrong=wrong,
        make=lambda: layout(change(market())),
        outcome=outcome,
        words=words,
        settings=settings,
    )


def files(wrong: str, make: Callable[[Frame], Files], outcome: Outcome, words: str = "",
          **settings: Any) -> Case:  # fmt: skip
    """The market, written down in a way of its own."""
    return Case(
        wrong=wrong,
        make=lambda: make(market()),
        outcome=outcome,
        words=words,
        settings=settings,
    )
