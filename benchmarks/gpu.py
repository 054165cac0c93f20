"""What the core does on one GPU, without Ray: `python -m benchmarks.gpu`, ten minutes at most.

1. The predictor's training by `train_window` against a bare loop with `nn.GRU`, the same kernels,
   and the same days on the device; for each precision that the device has. The first epoch, which
   cuDNN uses to choose its kernels, is left out.
2. An epoch of the GAN; scoring, from the panel to scores on the CPU; the device's memory.
3. A small window, GAN included, with spectral norm and a gradient penalty, whose second gradients
   are rarely run: largest difference of weights and scores against the CPU, and of a training that
   was interrupted against one that was not.

It needs torch, numpy, pandas, pyarrow, pydantic, jaxtyping and safetensors alone.
`--device cpu --assets 200 --days 4` runs it anywhere.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks.training_speed import BareNetwork, Size, bare_epoch, prepared_window
from gangru_dist.config.identity import with_precision
from gangru_dist.config.settings import GanConfig, GruConfig, RunConfig, TrainingConfig
from gangru_dist.models.precision import describe_device, describe_lack, prepare_torch
from gangru_dist.runs.model import TimedEpoch
from gangru_dist.training.checkpoint import TrainingState
from gangru_dist.training.data import WindowData
from gangru_dist.training.window import train_window

PRECISIONS = ("float32", "tf32", "bf16")
EPOCHS = 3
"""Of each stage; the fastest counts."""
SMALL = Size(assets=300, train_days=6, valid_days=2, gru=GruConfig(hidden=32, layers=2))
"""The window that is compared with the CPU's."""


def settings(gru: GruConfig, precision: str, *, gan: bool = False) -> RunConfig:
    """The report's networks, the GAN's with a reconstruction weight."""
    cfg = RunConfig(
        variant="gan_gru" if gan else "gru",
        gru=gru,
        gan=GanConfig(
            hidden=gru.hidden, layers=gru.layers, epochs=EPOCHS, reconstruction_weight=100.0
        ),
        training=TrainingConfig(epochs=EPOCHS, patience=EPOCHS),
    )
    return with_precision(cfg, precision)


def train(data: WindowData, cfg: RunConfig) -> tuple[TrainingState, list[TimedEpoch]]:
    """Train a window from its beginning."""
    epochs: list[TimedEpoch] = []
    state = TrainingState(cfg, 0, data.panel.device)
    train_window(data, state, cfg, seed=0, report=lambda epoch, _: epochs.append(epoch))
    return state, epochs


def seconds(work: Callable[[], Any]) -> float:
    """Wall seconds of the fastest run but the first; the work's result is on the CPU."""
    taken = []
    for _ in range(EPOCHS):
        started = time.perf_counter()
        work()
        taken.append(time.perf_counter() - started)
    return min(taken[1:])


def score(state: TrainingState, data: WindowData) -> Tensor:
    """Scores of the validation days, whose samples are made of the panel."""
    with torch.inference_mode():
        return torch.cat(
            [
                state.network(data.standardizer.standardize_day(data.panel, day.row, day.members))
                for day in data.valid
            ]
        ).cpu()


def training_line(size: Size, precision: str, device: str) -> str:
    """Samples a second of ours, of the bare loop and of scoring, and the device's memory."""
    cfg = settings(size.gru, precision)
    prepare_torch(cfg)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    data = prepared_window(cfg, size, device)
    state, epochs = train(data, cfg)
    memory = torch.cuda.max_memory_allocated() / 1e9 if device == "cuda" else 0.0
    bare = BareNetwork(data.panel.shape[2], cfg.gru).to(device)
    bare.load_state_dict(TrainingState(cfg, 0).network.predictor.state_dict())
    bare.forward = torch.autocast(  # type: ignore[method-assign]
        device, torch.bfloat16, enabled=data.arithmetic.bf16
    )(bare.forward)
    optimizer = torch.optim.Adam(
        bare.parameters(), lr=cfg.training.learning_rate, fused=device == "cuda"
    )
    days = [[(data.samples(day), day.label) for day in part] for part in (data.train, data.valid)]
    samples = sum(day.total for day in data.train)
    theirs = seconds(lambda: bare_epoch(bare, optimizer, *days))
    ours = min(epoch.seconds for epoch in epochs[1:])
    prepare_torch(cfg, scoring=True)
    scoring = sum(day.total for day in data.valid) / seconds(lambda: score(state, data))
    return (
        f"{precision:<8} ours {samples / ours:,.0f}  bare {samples / theirs:,.0f} samples/s  "
        f"ratio {theirs / ours:.2f}; scoring in float32 {scoring:,.0f} samples/s; "
        f"peak {memory:.1f} GB"
    )


def gan_line(size: Size, precision: str, device: str) -> str:
    """Samples a second of the GAN's epochs, and of the predictor's that follow."""
    cfg = settings(size.gru, precision, gan=True)
    prepare_torch(cfg)
    _, epochs = train(prepared_window(cfg, size, device), cfg)
    speeds = [
        max(epoch.samples_per_s for epoch in epochs[start : start + EPOCHS][1:])
        for start in (0, EPOCHS)
    ]
    return f"{precision:<8} GAN {speeds[0]:,.0f}  its predictor {speeds[1]:,.0f} samples/s"


def largest_gap(one: TrainingState, other: TrainingState) -> float:
    """Largest difference of the networks' weights, as a share of the largest weight."""
    pairs = [
        (a.detach().cpu(), b.detach().cpu())
        for a, b in zip(one.parts.parameters(), other.parts.parameters(), strict=True)
    ]
    return max(float((a - b).abs().max()) for a, b in pairs) / max(
        float(a.abs().max()) for a, _ in pairs
    )


def resume(data: WindowData, cfg: RunConfig) -> TrainingState:
    """Train a window, stored and read again after every epoch."""
    newest = TrainingState(cfg, 0, data.panel.device).to_bytes("bench")

    def interrupt(_: TimedEpoch, state: TrainingState) -> None:
        nonlocal newest
        newest = state.to_bytes("bench")
        raise KeyboardInterrupt

    while True:
        state = TrainingState(cfg, 0, data.panel.device)
        state.restore(newest, "bench")
        try:
            return train_window(data, state, cfg, seed=0, report=interrupt)
        except KeyboardInterrupt:
            continue


def exactness_line(precision: str, device: str, size: Size = SMALL) -> str:
    """Differences against the CPU in float32, and of a resumed training."""
    cfg = settings(size.gru, precision, gan=True)
    exact = with_precision(cfg, "float32")
    prepare_torch(exact)
    on_cpu = prepared_window(exact, size)
    right, _ = train(on_cpu, exact)
    prepare_torch(cfg)
    data = prepared_window(cfg, size, device)
    found, _ = train(data, cfg)
    again = resume(data, cfg)
    prepare_torch(cfg, scoring=True)
    scores, wanted = score(found, data), score(right, on_cpu)
    gap = float((scores - wanted).abs().max() / wanted.std())
    return (
        f"{precision:<8} against the CPU in float32: weights {largest_gap(found, right):.1e} of "
        f"the largest, scores {gap:.1e} standard deviations; "
        f"resumed against undisturbed: weights {largest_gap(found, again):.1e}"
    )


def main(size: Size, device: str, small: Size = SMALL) -> None:
    """Print the figures."""
    about = describe_device(torch.device(device))
    print(f"{about.name}, torch {torch.__version__}; a day has {size.assets:,} assets", flush=True)
    for precision in PRECISIONS:
        if lack := describe_lack(precision, [about]):
            print(f"{precision:<8} left out: {lack}")
            continue
        print(training_line(size, precision, device), flush=True)
        print(gan_line(dataclasses.replace(size, train_days=4), precision, device), flush=True)
        print(exactness_line(precision, device, small), flush=True)


def _arguments() -> tuple[Size, str]:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--assets", type=int, default=4000)
    parser.add_argument("--days", type=int, default=40, help="of training")
    parser.add_argument("--hidden", type=int, default=GruConfig().hidden)
    parser.add_argument("--layers", type=int, default=GruConfig().layers)
    given = parser.parse_args()
    gru = GruConfig(hidden=given.hidden, layers=given.layers)
    return Size(assets=given.assets, train_days=given.days, gru=gru), given.device


if __name__ == "__main__":
    main(*_arguments())
