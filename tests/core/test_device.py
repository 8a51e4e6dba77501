"""Devices by the names users type."""

import pytest
import torch

from dapg.core.device import resolve_device
from dapg.core.errors import UsageError


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
