"""Which arithmetic a device has, against what the operating system says of it."""

import platform
import typing
from pathlib import Path

import pytest
import torch

from gangru_dist.base.errors import ConfigError
from gangru_dist.config.identity import SETTINGS
from gangru_dist.config.settings import ResourcesConfig, RunConfig
from gangru_dist.config.sources import load
from gangru_dist.models.precision import (
    Device,
    choose_precision,
    describe_device,
    describe_lack,
    find_arithmetic,
    list_devices,
)
from tests.training.cpu_kinds import LIMITS

CPU = torch.device("cpu")
OLD = Device(name="CPU old")
NEW = Device(name="CPU new", fast=frozenset({"bf16"}))
GPU = Device(name="GPU", fast=frozenset({"bf16", "tf32"}))


class TestReference:
    @pytest.mark.skipif(
        platform.machine() != "x86_64" or not Path("/proc/cpuinfo").exists(),
        reason="flags of an x86 CPU under Linux",
    )
    def test_this_cpu_is_what_linux_says_it_is(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
        for name in (*LIMITS, "DNNL_MAX_CPU_ISA"):
            monkeypatch.delenv(name, raising=False)
        text = Path("/proc/cpuinfo").read_text()
        flags = next(line for line in text.splitlines() if line.startswith("flags")).split()
        has = bool({"avx512_bf16", "amx_bf16"} & set(flags))
        assert ("bf16" in describe_device(CPU).fast) == has


class TestCpu:
    @pytest.fixture(autouse=True)
    def a_cpu_with_bf16(self, monkeypatch: pytest.MonkeyPatch) -> None:
        known = {"cpu_name": "Zen 4", "avx512_bf16": True, "amx_bf16": False}
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: known)
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
        for name in (*LIMITS, "DNNL_MAX_CPU_ISA"):
            monkeypatch.delenv(name, raising=False)

    def test_it_has_bf16_and_no_tf32(self) -> None:
        assert describe_device(CPU) == Device(name="CPU Zen 4", fast=frozenset({"bf16"}))

    def test_one_without(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"cpu_name": "Zen 3"})
        assert describe_device(CPU) == Device(name="CPU Zen 3")

    def test_torch_limited_to_avx2(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
        monkeypatch.setenv("ATEN_CPU_CAPABILITY", "avx2")
        assert describe_device(CPU) == Device(name="CPU Zen 4 limited by ATEN_CPU_CAPABILITY=avx2")

    @pytest.mark.parametrize("name", ["ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"])
    @pytest.mark.parametrize(
        ("value", "has"),
        [
            ("AVX2", False),
            ("avx512_core", False),
            ("AVX512_CORE_VNNI", False),
            ("AVX512_CORE_BF16", True),
            ("AVX512_CORE_AMX", True),
            ("DEFAULT", True),
        ],
    )
    def test_onednn_limited(
        self, name: str, value: str, has: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(name, value)
        assert ("bf16" in describe_device(CPU).fast) == has
        assert (f"{name}={value}" in describe_device(CPU).name) != has


@pytest.mark.parametrize(
    ("capability", "fast"),
    [((7, 5), set()), ((8, 0), {"bf16", "tf32"}), ((12, 0), {"bf16", "tf32"})],
)
def test_gpus_from_sm_80(
    capability: tuple[int, int], fast: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: f"number {index}")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    found = list_devices(RunConfig(resources=ResourcesConfig(gpus_per_worker=0.5)))
    name = f"(sm_{capability[0]}{capability[1]})"
    assert found == [Device(name=f"GPU number {i} {name}", fast=frozenset(fast)) for i in (0, 1)]
    assert describe_device(torch.device("cuda:1")) == found[1]
    assert list_devices(RunConfig()) == [describe_device(CPU)]


class TestProperties:
    @pytest.mark.parametrize(
        ("devices", "best"),
        [([NEW], "bf16"), ([NEW, GPU], "bf16"), ([NEW, OLD], "float32"), ([OLD], "float32")],
    )
    def test_auto_is_what_all_devices_have(self, devices: list[Device], best: str) -> None:
        assert choose_precision(devices) == best
        assert describe_lack(best, devices) is None

    def test_every_setting_but_auto_is_an_arithmetic(self) -> None:
        dtypes = {}
        for name in typing.get_args(SETTINGS["training.precision"].type):
            if name != "auto":
                dtypes[name] = find_arithmetic(
                    load("demo", None, [f"training.precision={name}"])
                ).dtype
        assert dtypes.pop("float64") == torch.float64
        assert set(dtypes.values()) == {torch.float32}


class TestValidation:
    def test_who_lacks_it_and_what_it_needs(self) -> None:
        told = describe_lack("bf16", [NEW, OLD, OLD])
        assert told == (
            "training.precision=bf16 needs a CPU with avx512_bf16 or amx_bf16, or a GPU from "
            "sm_80; without it: CPU old"
        )
        assert "without it: CPU new, CPU old" in (describe_lack("tf32", [NEW, OLD, GPU]) or "")

    def test_auto_computes_nothing(self) -> None:
        with pytest.raises(ConfigError, match="auto is decided when a run starts"):
            find_arithmetic(load("demo", None, ["training.precision=auto"]))
