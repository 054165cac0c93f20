"""The checker behind `--jaxtyping-packages`: shapes, and types as mypy reads them."""

from collections.abc import Callable
from typing import Any

from beartype import BeartypeConf, beartype
from beartype.roar import BeartypeDecorHintPep673Exception

_as_mypy = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int is a float


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """Check a function's arguments and result when it is called; `Self` is left to mypy."""
    try:
        return _as_mypy(function)
    except BeartypeDecorHintPep673Exception:
        return function
