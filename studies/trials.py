"""Every setting that was tried, by name: what stands here counts in the deflated ICIR."""

from __future__ import annotations

_SMALL = ("gru.hidden=64", "gru.layers=1", "gru.head=[64]")
_BOTH = ('samples.channels=["shape","level"]', *_SMALL)

TRIALS: dict[str, tuple[str, ...]] = {
    "both": _BOTH,
    "shape": _SMALL,
    "level": ('samples.channels=["level"]', *_SMALL),
    "both-rate3e-4": (*_BOTH, "training.learning_rate=3e-4"),
    "both-rank": (*_BOTH, "label.transform=rank"),
    "both-every2": (*_BOTH, "windows.sample_every=2"),
    "both-head256": (*_BOTH, "gru.head=[256,64,64]"),
    "both-2x128": ('samples.channels=["shape","level"]',),
    "shape-2x128": (),
}
"""Name -> settings on top of `protocol.BASE`."""
