"""Devices by the names users type, and how small tensors get there without waiting."""

import ctypes
import functools
import sys
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from dapg.core.errors import UsageError


def resolve_device(name: str) -> torch.device:
    """``auto`` is the GPU where there is one, else the CPU; otherwise cpu, cuda or cuda:N.

    Raises:
        UsageError: no such device, or a GPU was asked for and this torch sees none.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"no such device: {name!r}; use auto, cpu, cuda or cuda:N") from error
    if device.type not in ("cpu", "cuda"):
        raise UsageError(f"dapg does not run on {name!r}; use auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UsageError(f"--device {name}: this torch ({torch.__version__}) sees no GPU; use --device cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(f"--device {name}: there are {torch.cuda.device_count()} GPUs, counted from cuda:0")
    return device


def faster_precision(network: nn.Module, device: torch.device) -> str:
    """bf16 or fp32, whichever trains a network faster on a device, by a rule and not by measurement.

    bf16 on a GPU that computes in it, and on a CPU with AMX unless the network has depthwise convolutions, which AMX
    does nothing for. Everywhere else fp32.
    """
    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp32"
    layers = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)]
    depthwise = any(layer.groups == layer.in_channels > 1 for layer in layers)
    return "bf16" if has_amx() and not depthwise else "fp32"


def keep_freed_memory() -> None:
    """Let glibc keep the memory of freed tensors for the next ones, on Linux; elsewhere nothing happens.

    By default it hands tensors above 32 MB back to the system and asks for each anew, whose pages are then cleared: a
    quarter of a training step of 256 small images.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
"""Of glibc's malloc.h."""


def has_amx(processor: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether this CPU multiplies tiles of bf16; False where Linux's file about it is missing."""
    try:
        return {"amx_tile", "amx_bf16"} <= set(processor.read_text().split())
    except OSError:
        return False


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the host on ``device``; a GPU goes on with its queue, which a plain ``.to(device)`` waits for."""
    if device.type == "cpu" or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


@functools.lru_cache(maxsize=256)
def constant(values: tuple[object, ...], device: torch.device, dtype: torch.dtype = torch.float32) -> Tensor:
    """A small table on ``device``, copied there on first use only; not to be changed."""
    with torch.inference_mode(False):
        return send(torch.tensor(values, dtype=dtype), device)


Network = TypeVar("Network", bound=nn.Module)


def place(network: Network, device: torch.device) -> Network:
    """Move a network, in place, its convolutions with channels last.

    That is the order tensor cores read; on a CPU a training step of a narrow ResNet-18 takes a fifth less time, one of
    MobileNetV2 a third less (``benchmarks/memory_format.py``). Results differ in the last bits only.
    """
    network.to(device)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network
