"""Devices by the names users type."""

import torch

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
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UsageError(f"--device {name}: this torch ({torch.__version__}) sees no GPU; use --device cpu")
    return device
