"""What several sections share: types of values, marks, strictness."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field

from gangru_dist.decides import Decides
from gangru_dist.errors import ConfigError
from gangru_dist.features import price_volume

STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)
"""Of every section: unknown keys and infinite numbers are errors."""

LATER = Decides.PANEL | Decides.IF_CHANGED
"""For settings that were added after panels had been built."""
NEW = Decides.MODEL | Decides.IF_CHANGED
"""For settings that were added after models had been stored."""


def _own_feature(name: str, info: Any) -> str:
    """A user's own feature is imported; names of ours are checked with the panel."""
    return price_volume.FEATURES.validated(name, info) if ":" in name else name


FeatureName = Annotated[str, AfterValidator(_own_feature)]
"""Out of `price_volume.FEATURES`, or `package.module:function` of one's own."""

Exposure = Literal["industry", "size"]
"""What a cross-sectional regression may remove: industry dummies, log market cap."""

Count = Annotated[int, Field(ge=1)]
"""A whole number, at least one."""


def require_unique(key: str, names: tuple[str, ...]) -> None:
    """Refuse a name that is there twice; `key` is the setting, for the message."""
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"{key} must be unique; repeated: {twice}.")
