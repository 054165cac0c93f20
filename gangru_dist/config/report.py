"""Settings `report.…`."""

from __future__ import annotations

from typing import Literal

from pydantic.dataclasses import dataclass

from gangru_dist.config.common import STRICT


@dataclass(frozen=True, kw_only=True, slots=True, config=STRICT)
class ReportConfig:
    """Presentation of report.html and tuning.html; no figure depends on it."""

    language: Literal["en", "zh"] = "en"
    """Language of the pages; metrics.json and the CSV tables are always in English."""
