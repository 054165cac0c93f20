"""A run small enough to go through a cluster in half a minute, as flags of a job."""

SETTINGS = (
    "panel.buckets=2",
    "windows.history_days=120",
    "windows.sample_every=10",
    "gan.hidden=4",
    "gan.layers=1",
    "gan.channels=[2, 3]",
    "gan.epochs=1",
    "gru.hidden=4",
    "gru.head=[4]",
    "training.epochs=2",
    "factor.quantiles=4",
    "synthetic.assets=40",
    "synthetic.first=2018-01-02",
    "synthetic.last=2019-03-29",
)
"""On top of preset demo: one refit day (2018-12-31), three month-ends to judge."""

FLAGS = tuple(word for setting in SETTINGS for word in ("--set", setting))
