"""Every setting that was tried, by name: what stands here counts in the deflated ICIR.

A tree: each trial changes one thing of the one it grew from, which its name begins with.
"""

from __future__ import annotations

_SMALL = ("gru.hidden=64", "gru.layers=1", "gru.head=[64]")
_BOTH = ('samples.channels=["shape","level"]', *_SMALL)
_LEVEL = ('samples.channels=["level"]', *_SMALL)
_STEADY = ('label.neutralize=["industry","size"]', "training.average_epochs=2")
_MEAN, _LEVEL_MEAN = (*_BOTH, *_STEADY), (*_LEVEL, *_STEADY)
_DECAY, _RANK = "training.weight_decay=1.0", "label.transform=rank"
_OLDER = ("windows.history_days=800", "windows.min_history_days=400")
_LEVEL_RANK = (*_LEVEL_MEAN, _RANK)
_GAN = (
    *("variant=gan_gru", "gan.hidden=64", "gan.layers=1", "gan.epochs=5"),
    *("gan.learning_rate=1e-3", "gan.reconstruction_weight=100"),
)

TRIALS: dict[str, tuple[str, ...]] = {
    "both": _BOTH,
    "shape": _SMALL,
    "neutral": (*_BOTH, 'label.neutralize=["industry","size"]'),
    "neutral-mean2": _MEAN,
    "neutral-mean2-decay": (*_MEAN, _DECAY),
    "neutral-mean2-dropout": (*_MEAN, "training.dropout=0.2"),
    "neutral-mean2-rank": (*_MEAN, _RANK),
    "neutral-mean2-every2": (*_MEAN, "windows.sample_every=2"),
    "neutral-mean2-rate3e-4": (*_MEAN, "training.learning_rate=3e-4"),
    "neutral-mean2-history800": (*_MEAN, *_OLDER),
    "neutral-mean2-head256": (*_MEAN, "gru.head=[256,64,64]"),
    "level": _LEVEL,
    "shape-2x128": (),
    "level-neutral-mean2": _LEVEL_MEAN,
    "level-neutral-mean2-decay": (*_LEVEL_MEAN, _DECAY),
    "level-neutral-mean2-rank": _LEVEL_RANK,  # preset `default`
    "level-neutral-mean2-history800": (*_LEVEL_MEAN, *_OLDER),
    "level-neutral-mean2-gan": (*_LEVEL_MEAN, *_GAN),
    "level-neutral-mean2-age100": (*_LEVEL_MEAN, "windows.half_life_days=100"),
    "level-neutral-mean2-also": (*_LEVEL_MEAN, "label.also=[5,10]"),
    "level-neutral-mean2-every1": (*_LEVEL_MEAN, "windows.sample_every=1"),
    "level-neutral-mean2-rank-mean4": (*_LEVEL_RANK, "training.average_epochs=4"),
    "level-neutral-mean2-rank-dropout": (*_LEVEL_RANK, "training.dropout=0.2"),
    "level-neutral-mean2-rank-gan": (*_LEVEL_RANK, *_GAN),
    "level-neutral-rank-ridge": (*_LEVEL_RANK, "predictor=ridge", "gru.options.alpha=1.0"),
    "level-neutral-rank-lightgbm": (*_LEVEL_RANK, "predictor=lightgbm"),
    "level-neutral-mean2-rank-horizon10": (*_LEVEL_RANK, "label.horizon=10"),
    "level-neutral-mean2-rank-horizon40": (*_LEVEL_RANK, "label.horizon=40"),
    "level-neutral-mean2-rank-age100": (*_LEVEL_RANK, "windows.half_life_days=100"),
    "level-neutral-mean2-rank-history800": (*_LEVEL_RANK, *_OLDER),
    "level-neutral-mean2-rank-history800-every10": (
        *_LEVEL_RANK,
        *_OLDER,
        "windows.sample_every=10",
    ),
}
"""Name -> settings on top of `protocol.BASE`. Tried and taken out: labels by Savage's scores, a
list-wise loss, and the designs of the GAN beside `_GAN` (docs/LOG.md, 2026-11-27 and -29)."""
