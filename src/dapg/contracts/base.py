"""What a check is: a function of a plug-in's name that raises where the contract is broken."""

from collections.abc import Callable, Mapping

from torch import Tensor

from dapg.core.errors import DapgError

Check = Callable[[str], None]
Checks = Mapping[str, Check]
"""By the name of what has to hold."""


def by_name(*checks: Check) -> Checks:
    """Checks by the names of their functions."""
    return {check.__name__: check for check in checks}


class BrokenContract(DapgError):
    """A plug-in does not do what its contract says."""


def require(holds: bool | Tensor, otherwise: str) -> None:
    """Refuse a plug-in.

    Raises:
        BrokenContract: with ``otherwise`` as its words, unless it holds.
    """
    if not bool(holds):
        raise BrokenContract(otherwise)


def require_near(first: Tensor, second: Tensor, otherwise: str) -> None:
    """The same for values that may differ in their last bits."""
    require(first.shape == second.shape and (first - second).abs().max() <= 1e-4 * second.abs().max() + 1e-5, otherwise)
