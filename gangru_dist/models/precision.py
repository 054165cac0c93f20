"""What `training.precision` means to torch, and which devices have that arithmetic.

| value | networks compute in | devices that have it |
|---|---|---|
| `float32`, `float64` | that | all |
| `tf32` | float32, matrix products of 10-bit mantissas | GPUs from sm_80 |
| `bf16` | bfloat16 by autocast; weights stay float32 | the same; CPUs: avx512_bf16, amx_bf16 |
| `auto` | bf16 if all devices of the run have it, else float32 | decided when the run starts |

A CPU without bf16 emulates it: a GRU trains at a twelfth of float32's speed, an LSTM fails. So it
is refused there, as tf32 is, which a CPU would silently compute in float32.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from dataclasses import dataclass

import torch

from gangru_dist.base.errors import ConfigError
from gangru_dist.config.settings import PLAIN_PRECISIONS, RunConfig

_NEEDS = {
    "tf32": "a GPU from sm_80",
    "bf16": "a CPU with avx512_bf16 or amx_bf16, or a GPU from sm_80",
}
"""What does not come with every device."""

_AUTO = ("bf16", "float32")
"""What `auto` may stand for, best first."""

_ATEN_WITHOUT = {"DEFAULT", "NO AVX", "AVX2"}
"""Capabilities of torch's own kernels that have no 512-bit registers."""
_ONEDNN_WITHOUT = {
    *("SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX2_VNNI_2", "AVX512_CORE", "AVX512_CORE_VNNI")
}
"""Values of ONEDNN_MAX_CPU_ISA below AVX512_CORE_BF16 (oneDNN, CPU dispatcher control)."""


@dataclass(frozen=True, kw_only=True)
class Arithmetic:
    """What torch is set to for a precision."""

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


def arithmetic(cfg: RunConfig) -> Arithmetic:
    """What a configuration's precision asks of torch.

    Raises:
        ConfigError: It is still `auto`.
    """
    if cfg.training.precision not in _ARITHMETIC:
        raise ConfigError(
            f"training.precision={cfg.training.precision} is decided when a run starts, from its "
            "workers' devices; nothing can be computed before. Give float32, float64, tf32 or bf16."
        )
    return _ARITHMETIC[cfg.training.precision]


@dataclass(frozen=True, kw_only=True)
class Device:
    """What a worker computes on."""

    name: str
    """For messages: model, where it is, and why it can do less than its kind."""
    fast: frozenset[str] = frozenset()
    """Precisions out of `_NEEDS` that it has."""


def cpu() -> Device:
    """This process's CPU. One that is told to use no more than AVX2 has no more."""
    known = torch.cpu.get_capabilities()
    name = f"CPU {known.get('cpu_name') or platform.machine()}"
    if not (known.get("avx512_bf16") or known.get("amx_bf16")):
        return Device(name=name)
    limits = _cpu_limits()
    if limits:
        return Device(name=f"{name} limited by {' '.join(limits)}")
    return Device(name=name, fast=frozenset({"bf16"}))


def _cpu_limits() -> list[str]:
    """Variables that keep this process from its CPU's bf16, as they are set."""
    limits = []
    if torch.backends.cpu.get_cpu_capability() in _ATEN_WITHOUT:
        limits.append(f"ATEN_CPU_CAPABILITY={os.environ.get('ATEN_CPU_CAPABILITY')}")
    for name in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"):
        if os.environ.get(name, "").upper() in _ONEDNN_WITHOUT:
            limits.append(f"{name}={os.environ[name]}")
    return limits


def gpu(index: int) -> Device:
    """One GPU that torch sees."""
    major, minor = torch.cuda.get_device_capability(index)
    name = f"GPU {torch.cuda.get_device_name(index)} (sm_{major}{minor})"
    return Device(name=name, fast=frozenset({"tf32", "bf16"} if major >= 8 else ()))


def device_of(place: torch.device) -> Device:
    """What a torch device of this process is."""
    if place.type != "cuda":
        return cpu()
    return gpu(torch.cuda.current_device() if place.index is None else place.index)


def devices_here(gpus_per_worker: float) -> tuple[Device, ...]:
    """What this machine's workers may get; the CPU too where promised GPUs are not seen."""
    if gpus_per_worker > 0 and torch.cuda.is_available():
        return tuple(gpu(index) for index in range(torch.cuda.device_count()))
    return (cpu(),)


def choose_precision(devices: Iterable[Device]) -> str:
    """Choose what `auto` stands for: the best that all of the devices have."""
    devices = tuple(devices)
    return next(
        precision
        for precision in _AUTO
        if precision in PLAIN_PRECISIONS or all(precision in device.fast for device in devices)
    )


def describe_lack(precision: str, devices: Iterable[Device]) -> str | None:
    """Which of the devices lack a precision, and what it needs; None if all have it."""
    if precision in PLAIN_PRECISIONS:
        return None
    without = dict.fromkeys(device.name for device in devices if precision not in device.fast)
    if not without:
        return None
    names = ", ".join(without)
    return f"training.precision={precision} needs {_NEEDS[precision]}; without it: {names}"
