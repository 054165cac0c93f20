"""Settings `panel.…`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from gangru_dist.config.common import LATER, STRICT, FeatureName, require_unique
from gangru_dist.decides import Decides
from gangru_dist.errors import ConfigError
from gangru_dist.features import price_volume


@dataclass(frozen=True, kw_only=True, slots=True, config=STRICT)
class PanelConfig:
    """The panel store."""

    features: Annotated[tuple[FeatureName, ...], Decides.PANEL | Decides.MODEL] = price_volume.NAMES
    """Names from `price_volume.FEATURES`, your own, or `column:NAME`, a further column of the bars;
    `samples.features` selects those of a sample."""
    without: Annotated[tuple[str, ...], Decides.NOTHING] = ()
    """Features to remove from `features`, e.g. one whose column the bars lack."""
    members: Annotated[str | None, LATER] = None
    """File of an index's members, with the columns date and code: each date lists all members
    from that day until the file's next date. The panel marks them day by day."""
    buckets: Annotated[int, Decides.NOTHING] = Field(default=64, ge=1, le=4096)
    """Hash buckets of assets; also the maximum number of workers per window."""

    def __post_init__(self) -> None:
        kept = tuple(name for name in self.features if name not in self.without)
        object.__setattr__(self, "features", kept)
        if not self.features:
            raise ConfigError("panel.without removes all of panel.features; leave at least one.")
        require_unique("panel.features", self.features)
