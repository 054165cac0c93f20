"""Every setting that was tried, by name: what stands here counts in the deflated ICIR.

A tree: each trial changes one thing of the one it grew from, which its name begins with.
"""

from __future__ import annotations

_SMALL = ("gru.hidden=64", "gru.layers=1", "gru.head=[64]")
_CHANNELS = 'samples.channels=["shape","level"]'
_BOTH = (_CHANNELS, *_SMALL)
_NEUTRAL = (*_BOTH, 'label.neutralize=["industry","size"]')
_MEAN = (*_NEUTRAL, "training.average_epochs=2")

TRIALS: dict[str, tuple[str, ...]] = {
    "both": _BOTH,
    "shape": _SMALL,
    "neutral": _NEUTRAL,
    "neutral-mean2": _MEAN,
    "neutral-mean2-decay": (*_MEAN, "training.weight_decay=1.0"),
    "neutral-mean2-dropout": (*_MEAN, "training.dropout=0.2"),
    "neutral-mean2-rank": (*_MEAN, "label.transform=rank"),
    "neutral-mean2-every2": (*_MEAN, "windows.sample_every=2"),
    "neutral-mean2-rate3e-4": (*_MEAN, "training.learning_rate=3e-4"),
    "neutral-mean2-history800": (
        *_MEAN,
        "windows.history_days=800",
        "windows.min_history_days=400",
    ),
    "neutral-mean2-head256": (*_MEAN, "gru.head=[256,64,64]"),
    "level": ('samples.channels=["level"]', *_SMALL),
    "shape-2x128": (),
    "both-2x128": (_CHANNELS,),
    "both-rank": (*_BOTH, "label.transform=rank"),
    "both-rate3e-4": (*_BOTH, "training.learning_rate=3e-4"),
}
"""Name -> settings on top of `protocol.BASE`, in the order in which they were run."""
