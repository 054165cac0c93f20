"""Precision, devices and torch's settings: what `training.precision` means on each device.

| value | networks compute in | devices that have it |
|---|---|---|
| `float32`, `float64` | the same | all |
| `tf32` | float32, matrix products of 10-bit mantissas | GPUs from sm_80 |
| `bf16` | bfloat16 by autocast; weights stay float32 | these too; CPUs: avx512_bf16, amx_bf16 |
| `auto` | bf16 if all devices of the run have it, else float32 | decided when the run starts |

A CPU without bf16 emulates it: a GRU trains at a twelfth of float32's speed, and an LSTM fails. So
bf16 is refused there. So is tf32 on any CPU, which would silently compute in float32.
"""

from __future__ import annotations

import os
import platform
import socket
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch

from gangru_dist.base.errors import ConfigError, TrainingError
from gangru_dist.config.settings import PLAIN_PRECISIONS, RunConfig

_NEEDS = {
    "tf32": "a GPU from sm_80",
    "bf16": "a CPU with avx512_bf16 or amx_bf16, or a GPU from sm_80",
}
"""Precisions that not every device has."""

_ATEN_WITHOUT = {"DEFAULT", "NO AVX", "AVX2"}
"""Capabilities of torch's own kernels that have no 512-bit registers."""
_ONEDNN_WITHOUT = {
    *("SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX2_VNNI_2", "AVX512_CORE", "AVX512_CORE_VNNI")
}
"""Values of ONEDNN_MAX_CPU_ISA below AVX512_CORE_BF16 (oneDNN, CPU dispatcher control)."""


@dataclass(frozen=True, kw_only=True)
class Arithmetic:
    """Settings of torch for a precision."""

    dtype: torch.dtype = torch.float32
    """Of samples, labels and weights."""
    bf16: bool = False
    """Networks under bfloat16 autocast."""
    products: str = "highest"
    """For `torch.set_float32_matmul_precision`."""


_ARITHMETIC = {
    "float32": Arithmetic(),
    "float64": Arithmetic(dtype=torch.float64),
    "tf32": Arithmetic(products="high"),
    "bf16": Arithmetic(bf16=True),
}


def find_arithmetic(cfg: RunConfig) -> Arithmetic:
    """Settings of torch for a configuration's precision.

    Raises:
        ConfigError: It is still `auto`.
    """
    if cfg.training.precision not in _ARITHMETIC:
        raise ConfigError(
            f"training.precision={cfg.training.precision} is decided when a run starts, from its "
            "workers' devices; nothing can be computed before. Give float32, float64, tf32 or bf16."
        )
    return _ARITHMETIC[cfg.training.precision]


def prepare_torch(cfg: RunConfig, *, scoring: bool = False) -> None:
    """Set threads, and whether a GPU may round what it multiplies in float32 (`tf32`).

    Scoring never rounds. cuDNN, which computes recurrences and convolutions, has a switch of its
    own, and torch leaves it on.
    """
    products = Arithmetic().products if scoring else find_arithmetic(cfg).products
    torch.set_num_threads(cfg.resources.threads_per_worker)
    torch.set_float32_matmul_precision(products)
    torch.backends.cudnn.allow_tf32 = products != "highest"


def choose_device(cfg: RunConfig) -> torch.device:
    """The GPU that `resources.gpus_per_worker` asks for; the CPU where torch sees none."""
    on_gpu = cfg.resources.gpus_per_worker > 0 and torch.cuda.is_available()
    return torch.device("cuda" if on_gpu else "cpu")


@dataclass(frozen=True, kw_only=True)
class Device:
    """A device that a worker computes on."""

    name: str
    """For messages: model, where it is, and why it can do less than its kind."""
    fast: frozenset[str] = frozenset()
    """Precisions out of `_NEEDS` that it has."""


def describe_device(device: torch.device) -> Device:
    """Describe a device of this process. A CPU limited to AVX2 by its environment has no more."""
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        major, minor = torch.cuda.get_device_capability(index)
        name = f"GPU {torch.cuda.get_device_name(index)} (sm_{major}{minor})"
        return Device(name=name, fast=frozenset({"tf32", "bf16"} if major >= 8 else ()))
    known = torch.cpu.get_capabilities()
    name = f"CPU {known.get('cpu_name') or platform.machine()}"
    if not (known.get("avx512_bf16") or known.get("amx_bf16")):
        return Device(name=name)
    limits = []
    if torch.backends.cpu.get_cpu_capability() in _ATEN_WITHOUT:
        limits.append(f"ATEN_CPU_CAPABILITY={os.environ.get('ATEN_CPU_CAPABILITY')}")
    for variable in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"):
        if os.environ.get(variable, "").upper() in _ONEDNN_WITHOUT:
            limits.append(f"{variable}={os.environ[variable]}")
    if limits:
        return Device(name=f"{name} limited by {' '.join(limits)}")
    return Device(name=name, fast=frozenset({"bf16"}))


def list_devices(cfg: RunConfig) -> list[Device]:
    """Devices that this machine's workers may get; the CPU where promised GPUs are not seen."""
    device = choose_device(cfg)
    if device.type == "cpu":
        return [describe_device(device)]
    count = torch.cuda.device_count()
    return [describe_device(torch.device("cuda", index)) for index in range(count)]


def choose_precision(devices: Sequence[Device]) -> str:
    """Choose what `auto` stands for: bf16 if all of the devices have it, else float32."""
    return "bf16" if all("bf16" in device.fast for device in devices) else "float32"


def describe_lack(precision: str, devices: Iterable[Device]) -> str | None:
    """Which of the devices lack a precision, and what it needs; None if all have it."""
    if precision in PLAIN_PRECISIONS:
        return None
    without = dict.fromkeys(device.name for device in devices if precision not in device.fast)
    if not without:
        return None
    names = ", ".join(without)
    return f"training.precision={precision} needs {_NEEDS[precision]}; without it: {names}"


def require_precision(
    cfg: RunConfig, device: torch.device, gather: Callable[[str | None], list[str | None]]
) -> None:
    """Check that the devices of all of a window's workers have the run's arithmetic.

    The driver has checked the nodes of that time; this worker may be on a later one, or a process
    that may use less of its CPU. Every worker raises alike, so that none waits for another.

    Args:
        cfg: The run.
        device: This worker's.
        gather: Gives every worker's value to all of them.

    Raises:
        TrainingError: One lacks it; another attempt would fail too.
    """
    reason = describe_lack(cfg.training.precision, [describe_device(device)])
    found = gather(f"{reason} on node {socket.gethostname()}" if reason else None)
    first = next(filter(None, found), None)
    if first:
        raise TrainingError(
            f"{first}. The run keeps the precision it began with: keep its workers off that "
            "node, or start another --run with --set training.precision=float32."
        )
