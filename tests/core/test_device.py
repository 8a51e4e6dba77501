"""Devices by the names users type."""

import platform
import resource
from pathlib import Path

import pytest
import torch
from torch import nn

from dapg.core import device
from dapg.core.device import faster_precision, has_amx, keep_freed_memory, resolve_device
from dapg.core.errors import UsageError
from dapg.models.backbones.mobilenet_v2 import MobileNetV2
from dapg.models.backbones.resnet18 import ResNet18


def pretend(monkeypatch: pytest.MonkeyPatch, gpus: int) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)


def test_auto_takes_the_gpu_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, 0)
    assert resolve_device("auto") == torch.device("cpu")
    pretend(monkeypatch, 2)
    assert resolve_device("auto") == torch.device("cuda")
    assert resolve_device("cuda:1") == torch.device("cuda:1")
    assert resolve_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize(
    ("name", "gpus", "message"),
    [
        ("gpu", 0, "no such device: 'gpu'; use auto, cpu, cuda or cuda:N"),
        ("", 0, "no such device"),
        ("meta", 0, "does not run on 'meta'"),
        ("cuda", 0, "sees no GPU; use --device cpu"),
        ("cuda:2", 2, "there are 2 GPUs, counted from cuda:0"),
    ],
)
def test_refused(monkeypatch: pytest.MonkeyPatch, name: str, gpus: int, message: str) -> None:
    pretend(monkeypatch, gpus)
    with pytest.raises(UsageError, match=message):
        resolve_device(name)


def test_amx_is_read_from_the_processor_s_flags(tmp_path: Path) -> None:
    file = tmp_path / "cpuinfo"
    assert not has_amx(file)
    for flags, expected in (("avx512_bf16 amx_tile", False), ("sse amx_bf16 avx512f amx_tile amx_int8", True)):
        file.write_text(f"processor\t: 0\nflags\t\t: fpu {flags}\nbugs\t\t: none\n")
        assert has_amx(file) == expected


@pytest.mark.parametrize("amx", [True, False])
def test_bf16_where_it_is_faster(monkeypatch: pytest.MonkeyPatch, amx: bool) -> None:
    monkeypatch.setattr(device, "has_amx", lambda: amx)
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    residual, depthwise = ResNet18(ResNet18.Config(width=0.125)), MobileNetV2(MobileNetV2.Config(width=0.25))
    assert faster_precision(residual, cpu) == ("bf16" if amx else "fp32")
    assert faster_precision(depthwise, cpu) == "fp32"
    assert faster_precision(nn.Conv2d(1, 8, 3), cpu) == ("bf16" if amx else "fp32"), "one channel is no depth"
    for capability, expected in (((7, 5), "fp32"), ((8, 0), "bf16"), ((9, 0), "bf16")):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _, capability=capability: capability)
        assert faster_precision(depthwise, gpu) == expected


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc's malloc")
def test_freed_memory_is_kept_for_the_next_tensor() -> None:
    """Pages that come anew from the system count as faults: 16,384 for each 64 MB."""
    keep_freed_memory()
    faults = []
    for _ in range(8):  # the first ones make the room
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.empty(2**24).fill_(1.0)
        faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    assert faults[-1] < 1_000, faults
