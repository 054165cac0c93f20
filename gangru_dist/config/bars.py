"""Settings `bars.…`."""

from __future__ import annotations

import datetime as dt
from dataclasses import field
from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from gangru_dist.config.common import LATER, STRICT
from gangru_dist.decides import Decides


@dataclass(frozen=True, kw_only=True, slots=True, config=STRICT)
class BarsConfig:
    """How a vendor's export maps to our columns."""

    format: str = "generic"
    """Name of a common export format, from `bars.formats.FORMATS`; `generic` expects our own
    column names."""
    columns: dict[str, str] = field(default_factory=dict)
    """Our column -> the file's column, on top of the format's mapping."""
    scales: dict[str, float] = field(default_factory=dict)
    """Our column -> factor applied to the file's numbers (percent: 0.01, lots: 100)."""
    prices: Annotated[Literal["traded", "adjusted"], LATER] = "traded"
    """`adjusted`: prices are already adjusted and need no adjustment factor; otherwise the factor
    is required."""
    code_from_name: Annotated[bool, LATER] = False
    """Whether a file without a code column holds the single stock given by its name."""
    encoding: Annotated[str, LATER] = "auto"
    """Encoding of CSV files, a Python name; `auto` detects UTF-8, UTF-16 and GB18030 (GBK)."""
    price_limits: Literal["auto", "none", "ashare"] = "auto"
    """Daily price-limit rule; `auto` takes the format's own."""
    max_quarantined: Annotated[float, Decides.NOTHING] = Field(default=0.01, ge=0, le=1)
    """Largest share of rows that may be set aside before the build fails."""
    max_jumps: Annotated[float, Decides.NOTHING] = Field(default=1e-4, ge=0, le=1)
    """Largest share of price moves that contradict price limits or `adj_factor`."""
    calendar: str | None = None
    """Text file with one trading day per line; otherwise a day on which a hundredth of the market
    traded is one."""
    weekends: bool = False
    """Whether Saturdays and Sundays may be trading days."""
    first_day: Annotated[dt.date | None, Decides.NOTHING] = None
    """Earlier dates are errors; default 1990-12-01 with `price_limits` ashare, otherwise 1900."""
