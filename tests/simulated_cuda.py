"""A CUDA device simulated on the CPU: tensors that say they are on cuda:0, and a list of every place that waits.

    with SimulatedCuda() as gpu:
        method.to(gpu.device)
        result = method.training_step(batch.to(gpu.device), generator)
        result.loss.backward()
    assert gpu.waits == {}

A simulated tensor wraps a CPU tensor with the real values. It refuses to meet host tensors (``MixedDevices``), and
whatever would make the host wait for the queue of a GPU is counted in ``waits`` under the line of the package that
caused it: values read back, results whose size is data (``nonzero``), copies to the host, copies to the device from
memory that is not page-locked or without ``non_blocking``, and decompositions that check their outcome.

Towards autograd the wrapper is a ``meta`` tensor, so that no CUDA is needed. Not seen: kernels, their precision, memory
and speed, and what C++ code does with a device it asks the tensor for.
"""

# It stands in for torch's own classes, whose signatures it cannot have.
# mypy: ignore-errors

import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import dapg

DEVICE = torch.device("cuda:0")

_READ = {"aten::_local_scalar_dense": "a value is read", "aten::equal": "equal", "aten::is_nonzero": "a value is read"}
_SIZES = {
    "aten::nonzero": "nonzero",
    "aten::masked_select": "masked_select",
    "aten::_unique2": "unique",
    "aten::unique_dim": "unique",
    "aten::unique_consecutive": "unique",
    "aten::bincount": "bincount",
}
_DECOMPOSITIONS = {
    "aten::_linalg_svd": "svd",
    "aten::_linalg_eigh": "eigh",
    "aten::linalg_eig": "eig",
    "aten::linalg_lstsq": "lstsq",
    "aten::_linalg_check_errors": "a check of a decomposition",
}
_WAITING = {**_READ, **_SIZES, **_DECOMPOSITIONS}


class MixedDevices(RuntimeError):
    """A device tensor met a host tensor in one operation."""


class DeviceTensor(Tensor):
    """Values on the CPU in ``inner``; everything else says cuda:0."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> "DeviceTensor":
        made: DeviceTensor = torch.Tensor._make_wrapper_subclass(
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            layout=inner.layout,
            device="meta",
        )
        made.inner = inner
        return made

    @property
    def device(self) -> torch.device:
        return DEVICE

    @property
    def is_cuda(self) -> bool:
        return True

    @property
    def is_cpu(self) -> bool:
        return False

    @property
    def is_meta(self) -> bool:
        return False

    def new_tensor(self, data: Any, **options: Any) -> Tensor:
        """The C++ code would make it on ``meta``."""
        return torch.tensor(data, **{"dtype": self.dtype, "device": DEVICE, **options})

    def tolist(self) -> Any:
        """The C++ code would read memory that is not there."""
        _current()._wait("a value is read")
        return self.inner.tolist()

    def __getitem__(self, index: Any) -> Tensor:
        """The C++ code would make lists to tensors on ``meta``, which hold nothing."""
        return super().__getitem__(_with_tensors(index))

    def __setitem__(self, index: Any, value: Any) -> None:
        """As ``__getitem__``."""
        super().__setitem__(_with_tensors(index), value)

    def numpy(self, *args: Any, **options: Any) -> Any:
        """As on a GPU."""
        raise TypeError("can't convert a cuda:0 tensor to numpy; use .cpu() first")

    def __array__(self, *args: Any, **options: Any) -> Any:
        return self.numpy()

    def __repr__(self, **options: Any) -> str:
        return f"DeviceTensor({self.inner!r})"

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Stored as a tensor of the host, as which a checkpoint is read."""
        return self.inner.detach().__reduce_ex__(protocol)

    def __deepcopy__(self, memo: dict[int, Any]) -> "DeviceTensor":
        copied = DeviceTensor(self.inner.detach().clone())
        return nn.Parameter(copied, self.requires_grad) if isinstance(self, nn.Parameter) else copied

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _current()._run(func, args, kwargs or {})


_ACTIVE: list["SimulatedCuda"] = []


def _current() -> "SimulatedCuda":
    assert _ACTIVE, "a tensor of a simulated device is used after the device is gone"
    return _ACTIVE[-1]


class SimulatedCuda(TorchDispatchMode):
    """While it is entered there is a cuda:0; ``waits`` counts (what, where) since the last ``forget``."""

    device = DEVICE

    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[tuple[str, str]] = Counter()
        self._stack = ExitStack()

    def __enter__(self) -> "SimulatedCuda":
        patches: list[tuple[Any, str, Any]] = [
            (torch.cuda, "_lazy_init", lambda: None),
            (torch.cuda, "is_available", lambda: True),
            (torch.cuda, "device_count", lambda: 1),
            (torch.accelerator, "is_available", lambda: True),  # so that the loader pins its batches
            (torch.cuda, "get_device_name", lambda device=None: "simulated"),
            (torch.cuda, "get_device_capability", lambda device=None: (8, 0)),
            (torch.cuda, "is_bf16_supported", lambda including_emulation=True: True),
            (torch.cuda, "reset_peak_memory_stats", lambda device=None: None),
            (torch.cuda, "max_memory_allocated", lambda device=None: 0),
            (torch.cuda, "manual_seed_all", lambda seed: None),
            (torch.cuda, "synchronize", lambda device=None: self._wait("synchronize")),
            (Tensor, "pin_memory", _pinned),
            (Tensor, "is_pinned", lambda tensor, device=None: getattr(tensor, "_page_locked", False)),
            (nn.Module, "to", _moved(nn.Module.to)),
        ]
        for owner, name, replacement in patches:
            self._stack.enter_context(mock.patch.object(owner, name, replacement))
        # Only then does torch.tensor(..., device="cuda:0") pass through here as a copy from the host.
        before = torch._C._only_lift_cpu_tensors()
        torch._C._set_only_lift_cpu_tensors(True)
        self._stack.callback(torch._C._set_only_lift_cpu_tensors, before)
        _ACTIVE.append(self)
        self._stack.callback(_ACTIVE.pop)
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._stack.close()

    def forget(self) -> None:
        """Begin to count again."""
        self.waits.clear()

    @contextmanager
    def no_wait(self) -> Iterator[None]:
        """Nothing within may wait."""
        before = Counter(self.waits)
        yield
        assert not self.waits - before, f"waits for the device: {dict(self.waits - before)}"

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self._run(func, args, kwargs or {})

    def _wait(self, what: str) -> None:
        self.waits[what, _place()] += 1

    def _run(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """One operation: check, count, compute on the CPU, and wrap what the device would hold."""
        name, target = func._schema.name, kwargs.get("device")
        leaves = [*_leaves(args), *_leaves(list(kwargs.values()))]
        here = [leaf for leaf in leaves if isinstance(leaf, DeviceTensor)]
        host = [leaf for leaf in leaves if isinstance(leaf, Tensor) and not isinstance(leaf, DeviceTensor)]
        wanted = _is_ours(target)
        if name in ("aten::_to_copy", "aten::copy_"):
            return self._copy(func, args, kwargs)
        if here:
            self._check(name, args, host)
        options = {**kwargs, "device": torch.device("cpu")} if target is not None else kwargs
        out = func(*_map(_inner, args), **_map(_inner, options))
        if not (here if target is None else wanted) or name == "aten::_local_scalar_dense":
            return out
        known = {id(tensor.inner): tensor for tensor in here}
        return _map(lambda value: _wrapped(value, known), out)

    def _check(self, name: str, args: tuple[Any, ...], host: list[Tensor]) -> None:
        if name in _WAITING:
            self._wait(_WAITING[name])
        indexed = "index" in name and isinstance(args[1], list | tuple)
        if indexed and any(isinstance(index, Tensor) and index.dtype == torch.bool for index in args[1]):
            self._wait("a mask as index")
        if name == "aten::repeat_interleave":
            self._wait("repeat_interleave by a tensor")
        for tensor in host:
            if tensor.ndim == 0:
                continue  # goes along as a number
            if not indexed:
                raise MixedDevices(f"{name}: a host tensor of shape {tuple(tensor.shape)} at {_place()}")
            self._wait("an index on the host")

    def _copy(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Between host and device, or within either."""
        if func._schema.name == "aten::copy_":
            target, source = args[0], args[1]
            to_device, asynchronous = isinstance(target, DeviceTensor), kwargs.get("non_blocking", args[2:] == (True,))
            self._crossing(source, to_device, asynchronous)
            func(*_map(_inner, args), **kwargs)
            return target
        source, target = args[0], kwargs.get("device")
        to_device = isinstance(source, DeviceTensor) if target is None else _is_ours(target)
        self._crossing(source, to_device, kwargs.get("non_blocking", False))
        rest = {key: value for key, value in kwargs.items() if key != "device"}
        out = func(_inner(source), *args[1:], **rest)
        return DeviceTensor(out) if to_device else out

    def _crossing(self, source: Tensor, to_device: bool, asynchronous: bool) -> None:
        if isinstance(source, DeviceTensor) and not to_device:
            self._wait("copy to the host")
        elif not isinstance(source, DeviceTensor) and to_device and not (asynchronous and source.is_pinned()):
            self._wait("copy to the device that waits")


def _is_ours(device: Any) -> bool:
    """Whether something is to be made on the device: by its name, or by what C++ code takes it for."""
    return device is not None and torch.device(device).type in ("cuda", "meta")


def _map(function: Callable[[Any], Any], value: Any) -> Any:
    """What operations take and give: lists, tuples and keywords; torch's own function takes several times as long."""
    if isinstance(value, list | tuple):
        return type(value)([_map(function, part) for part in value])
    if isinstance(value, dict):
        return {key: _map(function, part) for key, part in value.items()}
    return function(value)


def _leaves(values: Any) -> Iterator[Any]:
    for value in values:
        if isinstance(value, list | tuple):
            yield from _leaves(value)
        else:
            yield value


def _with_tensors(index: Any) -> Any:
    if isinstance(index, tuple):
        return tuple(torch.tensor(part) if isinstance(part, list) else part for part in index)
    return torch.tensor(index) if isinstance(index, list) else index


def _inner(value: Any) -> Any:
    return value.inner if isinstance(value, DeviceTensor) else value


def _wrapped(value: Any, known: dict[int, DeviceTensor]) -> Any:
    if not isinstance(value, Tensor) or isinstance(value, DeviceTensor):
        return value
    return known[id(value)] if id(value) in known else DeviceTensor(value)


def _pinned(tensor: Tensor, device: Any = None) -> Tensor:
    """A copy in page-locked memory; here a mark."""
    assert not isinstance(tensor, DeviceTensor), "cannot pin a tensor on cuda:0"
    copied = tensor.detach().clone()
    copied._page_locked = True
    return copied


def _moved(real: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """``Module.to``: parameters and buffers are replaced where a device is named."""

    def to(module: nn.Module, *args: Any, **options: Any) -> nn.Module:
        named = [value for value in (*args, options.get("device")) if isinstance(value, str | torch.device)]
        if not named:
            return real(module, *args, **options)
        ours = _is_ours(named[0])
        for part in module.modules():
            for name, value in part._parameters.items():
                if value is not None and isinstance(value, DeviceTensor) != ours:
                    moved = DeviceTensor(value.data) if ours else value.inner
                    part._parameters[name] = nn.Parameter(moved.detach(), requires_grad=value.requires_grad)
            for name, value in part._buffers.items():
                if value is not None and isinstance(value, DeviceTensor) != ours:
                    part._buffers[name] = DeviceTensor(value) if ours else value.inner
        return module

    return to


_PACKAGE = f"{Path(dapg.__file__).parent.as_posix()}/"


def _place() -> str:
    """The innermost line of the package that leads here."""
    for frame in reversed(traceback.extract_stack(sys._getframe(1))):
        path = frame.filename.replace("\\", "/")
        if path.startswith(_PACKAGE):
            return f"{path.removeprefix(_PACKAGE)}:{frame.lineno} {frame.name}"
    return "outside the package"
