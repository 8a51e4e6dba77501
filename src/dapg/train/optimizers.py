"""Optimisers by name, LARS among them, and the learning rate as a pure function of the step."""

import math
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args, overload

import torch
from torch import Tensor, nn

from dapg.core.errors import UsageError, nearest

OptimizerName = Literal["sgd", "adam", "adamw", "lars"]
ScheduleName = Literal["constant", "cosine", "step"]
ParameterGroup = dict[str, Any]
"""``params`` and, where they differ from the defaults, ``lr``, ``weight_decay``, ``adapt`` (LARS), ``name``."""


@dataclass(frozen=True)
class OptimizerConfig:
    """Which optimiser, and its settings; those that another one reads are ignored by it."""

    name: OptimizerName = "sgd"
    """sgd, adam, adamw or lars."""
    lr: float = 0.03
    """Base learning rate, before warm-up and schedule."""
    weight_decay: float = 1e-4
    """Weight decay: added to the gradient (sgd, adam, lars) or taken from the weights (adamw)."""
    momentum: float = 0.9
    """Momentum of sgd and lars."""
    nesterov: bool = False
    """Nesterov's momentum in sgd (the published AGW recipe has it)."""
    beta_1: float = 0.9
    """Decay of the mean of gradients in adam and adamw."""
    beta_2: float = 0.999
    """Decay of the mean of squared gradients in adam and adamw."""
    epsilon: float = 1e-8
    """Added to adam's denominator."""
    trust_coefficient: float = 1e-3
    """Share of a weight's length that LARS moves it by (You et al. 2017)."""

    def build(self, groups: Iterable[ParameterGroup]) -> torch.optim.Optimizer:
        """The optimiser over these parameter groups."""
        return build_optimizer(groups=groups, **asdict(self))


@dataclass(frozen=True)
class ScheduleConfig:
    """How the learning rate moves; all lengths count optimiser steps."""

    schedule: ScheduleName = "cosine"
    """constant, cosine (to 0 at the last step) or step (times ``gamma`` at each milestone)."""
    warmup_steps: int = 0
    """Steps over which the rate rises linearly to its base value."""
    milestones: tuple[int, ...] = ()
    """Steps at which a ``step`` schedule falls."""
    gamma: float = 0.1
    """Factor at each milestone."""

    def __post_init__(self) -> None:
        """Refuse values that give no schedule."""
        _check_schedule(**asdict(self))


def build_optimizer(
    name: str,
    groups: Iterable[ParameterGroup],
    lr: float = 0.03,
    weight_decay: float = 1e-4,
    momentum: float = 0.9,
    nesterov: bool = False,
    beta_1: float = 0.9,
    beta_2: float = 0.999,
    epsilon: float = 1e-8,
    trust_coefficient: float = 1e-3,
) -> torch.optim.Optimizer:
    """An optimiser over parameter groups; the group's own ``lr`` and ``weight_decay`` win over the defaults.

    Parameters that take no gradient are left out, and a parameter in two groups is refused by torch. Each group
    remembers its rate as ``base_lr``, from which ``set_learning_rates`` starts.

    Raises:
        UsageError: unknown name, a value out of range, or nothing to train.
    """
    known = list(get_args(OptimizerName))
    if name not in known:
        raise UsageError(f"no optimiser is called {name!r}{nearest(name, known)}; known: {', '.join(known)}")
    kept = _trainable(groups, lr, weight_decay)
    if nesterov and (name != "sgd" or momentum <= 0):
        raise UsageError("nesterov belongs to sgd with a momentum above 0")
    betas = (beta_1, beta_2)
    try:
        if name == "sgd":
            return torch.optim.SGD(kept, lr=lr, momentum=momentum, nesterov=nesterov, weight_decay=weight_decay)
        if name == "adam":
            return torch.optim.Adam(kept, lr=lr, betas=betas, eps=epsilon, weight_decay=weight_decay)
        if name == "adamw":
            return torch.optim.AdamW(kept, lr=lr, betas=betas, eps=epsilon, weight_decay=weight_decay)
        return LARS(kept, lr, momentum, weight_decay, trust_coefficient)
    except ValueError as error:
        raise UsageError(f"{name} does not accept its settings: {error}") from error


def _trainable(groups: Iterable[ParameterGroup], lr: float, weight_decay: float) -> list[ParameterGroup]:
    """Groups with explicit rates, without frozen parameters and without empty groups."""
    kept = []
    for group in groups:
        parameters = [parameter for parameter in group["params"] if parameter.requires_grad]
        rate = group.get("lr", lr)
        if rate < 0 or not math.isfinite(rate):
            raise UsageError(f"a learning rate is 0 or above, got {rate}")
        if parameters:
            kept.append({"weight_decay": weight_decay, **group, "params": parameters, "lr": rate, "base_lr": rate})
    if not kept:
        raise UsageError("no parameter takes a gradient: there is nothing to train")
    return kept


def split_groups(module: nn.Module, lr: float, weight_decay: float, name: str = "") -> list[ParameterGroup]:
    """Weights with decay, and biases and batch norms (one axis or none) without decay and without LARS's adaptation.

    What SimCLR and BYOL train with; AGW and MoCo decay everything in one group.
    """
    weights = [parameter for parameter in module.parameters() if parameter.ndim > 1]
    others = [parameter for parameter in module.parameters() if parameter.ndim <= 1]
    return [
        {"name": f"{name}weights", "params": weights, "lr": lr, "weight_decay": weight_decay, "adapt": True},
        {"name": f"{name}biases and norms", "params": others, "lr": lr, "weight_decay": 0.0, "adapt": False},
    ]


class LARS(torch.optim.Optimizer):
    """SGD with momentum whose rate is scaled for each tensor (You, Gitman, Ginsburg 2017, algorithm 1).

    local = coefficient * |w| / (|g| + decay * |w|); v <- momentum * v + lr * local * (g + decay * w); w <- w - v.
    Groups with ``adapt`` False (biases, batch norms) take local = 1, and so does a tensor whose length or gradient
    is 0, which would otherwise never move.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[ParameterGroup],
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust_coefficient: float = 1e-3,
    ) -> None:
        for label, value in (("lr", lr), ("momentum", momentum), ("weight_decay", weight_decay)):
            if value < 0:
                raise ValueError(f"{label} is 0 or above, got {value}")
        if trust_coefficient <= 0:
            raise ValueError(f"trust_coefficient is above 0, got {trust_coefficient}")
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "trust_coefficient": trust_coefficient,
            "adapt": True,
        }
        super().__init__(params, defaults)

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One update of every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad, group)
        return loss

    def _update(self, parameter: Tensor, gradient: Tensor, group: ParameterGroup) -> None:
        decay = group["weight_decay"]
        change = gradient.add(parameter, alpha=decay) if decay else gradient.clone()
        if group["adapt"]:
            length, slope = parameter.norm(), gradient.norm()
            local = group["trust_coefficient"] * length / (slope + decay * length)
            change.mul_(torch.where((length > 0) & (slope > 0), local, 1.0))
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        velocity = state["momentum_buffer"]
        velocity.mul_(group["momentum"]).add_(change, alpha=group["lr"])
        parameter.sub_(velocity)


def learning_rate(
    step: int,
    total_steps: int,
    base: float,
    schedule: str = "cosine",
    warmup_steps: int = 0,
    milestones: Sequence[int] = (),
    gamma: float = 0.1,
) -> float:
    """Learning rate of optimiser step ``step`` = 0, 1, ... of ``total_steps``; no state, so resuming is a number.

    Warm-up: base * (step + 1) / warmup_steps, so that the last warm-up step already has the base rate. Then
    ``constant``: base. ``cosine``: base * (1 + cos(pi * progress)) / 2, where progress runs from 0 at the first step
    after warm-up to 1 at ``total_steps``. ``step``: base * gamma^(milestones reached), counted from step 0.

    Raises:
        UsageError: unknown schedule, or lengths that make no sense.
    """
    _check_schedule(schedule, warmup_steps, milestones, gamma)
    if step < 0 or total_steps < 1:
        raise UsageError(f"a step is 0 or above and a run has at least one, got step {step} of {total_steps}")
    if step < warmup_steps:
        return base * (step + 1) / warmup_steps
    if schedule == "constant":
        return base
    if schedule == "step":
        return float(base * gamma ** bisect_right(milestones, step))
    progress = min((step - warmup_steps) / max(total_steps - warmup_steps, 1), 1.0)
    return base * (1 + math.cos(math.pi * progress)) / 2


def _check_schedule(schedule: str, warmup_steps: int, milestones: Sequence[int], gamma: float) -> None:
    known = list(get_args(ScheduleName))
    if schedule not in known:
        raise UsageError(f"no schedule is called {schedule!r}{nearest(schedule, known)}; known: {', '.join(known)}")
    if warmup_steps < 0:
        raise UsageError(f"warmup_steps is 0 or above, got {warmup_steps}")
    if schedule == "step" and (not milestones or list(milestones) != sorted(set(milestones)) or milestones[0] < 1):
        raise UsageError(f"a step schedule has rising milestones above 0, got {tuple(milestones)}")
    if gamma <= 0:
        raise UsageError(f"gamma is above 0, got {gamma}")


def set_learning_rates(optimizer: torch.optim.Optimizer, step: int, total_steps: int, schedule: ScheduleConfig) -> None:
    """Give every group the rate of this step, from its own ``base_lr``."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(step, total_steps, group["base_lr"], **asdict(schedule))
