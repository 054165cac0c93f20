"""World size changes nothing: 1, 2 and 3 gloo processes train the same model."""

import socket
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from safetensors.torch import load_file, save_file

from gangru_dist.runs.model import get_figures
from gangru_dist.training.checkpoint import TrainingState
from gangru_dist.training.data import join_workers, prepare
from gangru_dist.training.window import gan_samples, train_window
from tests.training.worlds import block, config, share, until, window

LOSSES = 5e-6
"""float32: an untrained predictor's scores differ by a hundredth of their size, so their rounding,
6e-8, is 6e-6 of what the IC looks at; seen: 5e-7 in training losses, 2e-6 in validation ICs."""
ASSETS = 120
"""Rounding of one asset weighs little in the IC of so many."""
MOVED = {"float32": 4, "float64": 0}
"""Counts in histograms of samples: rounding may carry a value over a bin's edge, which is two."""
TOLERANCE = {"float32": 1e-5, "float64": 1e-10}


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def train(rank: int, size: int, port: int, precision: str, folder: str, predictor: str) -> None:
    """One worker; shares are uneven, and the last owns nobody on some days."""
    torch.set_num_threads(1)
    if size > 1:
        init = f"tcp://127.0.0.1:{port}"
        dist.init_process_group("gloo", init_method=init, rank=rank, world_size=size)
    cfg = config(
        gan={"epochs": 3, "learning_rate": 1e-4, "reconstruction_weight": 0.1},
        training={
            "epochs": 3, "learning_rate": 1e-4, "precision": precision, "weight_decay": 0.1,
            "dropout": 0.2, "average_epochs": 1.5,
        },
        samples={"channels": ["shape", "level"] if predictor == "gru" else ["shape"]},
        label={"neutralize": ["industry", "size"], "also": [2]},
        windows={"half_life_days": 20.0},
        predictor=predictor,
        gru={"hidden": 5 if predictor == "gru" else 8},  # what 4 heads divide
    )  # fmt: skip
    world = block(assets=ASSETS)
    chosen = window(world, cfg)
    owner = np.minimum(np.arange(ASSETS) % 7 // 2, size - 1)
    owner[3] = size - 1
    if size == 3:
        owner[owner == 2], owner[3] = 1, 2  # the third worker: one asset, listed late
    mine = share(until(world, chosen.refit), np.flatnonzero(owner == rank))
    data = prepare(mine, chosen, world.dates, cfg, join_workers())
    state = train_window(data, TrainingState(cfg, 5), cfg, seed=5, collective=join_workers())
    losses = [value for epoch in state.progress.history for value in get_figures(epoch).values()]
    tensors = {n: t.detach().clone() for n, t in state.network.state_dict().items()}
    assert state.network.generator is not None
    samples = gan_samples(state.network.generator, data, cfg, seed=5, collective=join_workers())
    by_feature = [*samples.real.values(), *samples.generated.values()]
    moments = [[of.mean, of.std, of.cs_std] for of in by_feature]
    tensors["sample moments"] = torch.tensor(moments, dtype=torch.float64)
    tensors["sample counts"] = torch.tensor([of.histogram for of in by_feature])
    save_file(
        tensors | {"losses": torch.tensor(losses, dtype=torch.float64)},
        Path(folder, f"{precision}-{size}-{rank}.safetensors"),
    )
    if size > 1:
        dist.destroy_process_group()


def run(
    size: int, precision: str, folder: Path, predictor: str = "gru"
) -> list[dict[str, torch.Tensor]]:
    mp.spawn(train, (size, free_port(), precision, str(folder), predictor), nprocs=size)
    return [load_file(folder / f"{precision}-{size}-{rank}.safetensors") for rank in range(size)]


@pytest.mark.slow
@pytest.mark.parametrize(
    "precision", ["float32", pytest.param("float64", marks=pytest.mark.trials)]
)
def test_one_two_and_three_workers_train_the_same_model(precision: str, tmp_path: Path) -> None:
    (alone,) = run(1, precision, tmp_path)
    counts = alone.pop("sample counts")
    for size in (2, 3):
        ranks = run(size, precision, tmp_path)
        for other in ranks[1:]:
            assert all(torch.equal(other[name], ranks[0][name]) for name in other)
        moved = int((ranks[0]["sample counts"] - counts).abs().sum())
        assert moved <= MOVED[precision], (size, moved)
        for name, expected in alone.items():
            scale = float(expected.abs().max())
            tolerance = (
                LOSSES if name == "losses" and precision == "float32" else TOLERANCE[precision]
            )
            difference = float((ranks[0][name] - expected).abs().max())
            assert difference <= tolerance * scale, (name, size, difference, scale)


@pytest.mark.slow
@pytest.mark.parametrize(
    "predictor",
    [
        pytest.param("lstm", marks=pytest.mark.trials),
        pytest.param("transformer", marks=pytest.mark.trials),
        pytest.param("ridge", marks=pytest.mark.trials),
        pytest.param("my_plugin:Mean", marks=pytest.mark.trials),
    ],
)
def test_so_do_they_with_another_predictor(
    predictor: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One's own too, of a module that the workers import by its name."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1]))
    (alone,), ranks = (run(size, "float64", tmp_path, predictor) for size in (1, 2))
    assert any(name.startswith("predictor.") for name in alone)
    for name, expected in alone.items():
        assert torch.equal(ranks[0][name], ranks[1][name])
        difference = float((ranks[0][name] - expected).abs().max())
        assert difference <= TOLERANCE["float64"] * float(expected.abs().max()), name
