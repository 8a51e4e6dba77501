"""Optimisers by name, LARS among them, and the learning rate as a pure function of the step."""

import math
from collections.abc import Callable, Iterable
from typing import get_args, overload

import torch
from jaxtyping import Float
from torch import Tensor

from dapg.core.device import constant
from dapg.core.errors import UsageError, nearest
from dapg.core.train_config import OptimizerConfig, OptimizerName, ParameterGroup, ScheduleConfig


def build_optimizer(config: OptimizerConfig, groups: Iterable[ParameterGroup]) -> torch.optim.Optimizer:
    """An optimiser over parameter groups; a group's own ``lr`` and ``weight_decay`` win over the settings'.

    Parameters that take no gradient are left out. Each group remembers its rate as ``base_lr``, which the schedule's
    factor multiplies.

    Raises:
        UsageError: unknown name, a value out of range, or nothing to train.
    """
    known = list(get_args(OptimizerName))
    if config.name not in known:
        raise UsageError(
            f"no optimiser is called {config.name!r}{nearest(config.name, known)}; known: {', '.join(known)}"
        )
    if config.nesterov and (config.name != "sgd" or config.momentum <= 0):
        raise UsageError("nesterov belongs to sgd with a momentum above 0")
    trained = _trainable(groups, config.lr, config.weight_decay)
    lr, decay, momentum = config.lr, config.weight_decay, config.momentum
    betas = (config.beta_1, config.beta_2)
    try:
        match config.name:
            case "sgd":
                return torch.optim.SGD(trained, lr, momentum, weight_decay=decay, nesterov=config.nesterov)
            case "adam":
                return torch.optim.Adam(trained, lr, betas, config.epsilon, decay)
            case "adamw":
                return torch.optim.AdamW(trained, lr, betas, config.epsilon, decay)
            case "lars":
                return LARS(trained, lr, momentum, decay, config.trust_coefficient)
    except ValueError as error:
        raise UsageError(f"{config.name} does not accept its settings: {error}") from error


def _trainable(groups: Iterable[ParameterGroup], lr: float, weight_decay: float) -> list[ParameterGroup]:
    """Groups with explicit rates, without frozen parameters and without empty groups."""
    trained = []
    for group in groups:
        parameters = [parameter for parameter in group["params"] if parameter.requires_grad]
        rate = group.get("lr", lr)
        if rate < 0 or not math.isfinite(rate):
            raise UsageError(f"a learning rate is 0 or above, got {rate}")
        if parameters:
            trained.append({"weight_decay": weight_decay, **group, "params": parameters, "lr": rate, "base_lr": rate})
    if not trained:
        raise UsageError("no parameter takes a gradient: there is nothing to train")
    return trained


class LARS(torch.optim.Optimizer):
    """SGD with momentum whose rate is scaled for each tensor (You, Gitman, Ginsburg 2017, algorithm 1).

    ``local = coefficient * |w| / (|g| + decay * |w|); v <- momentum * v + lr * local * (g + decay * w); w <- w - v``.
    Tensors of one axis or none (biases, batch norms) take local = 1, as is usual, unless their group says ``adapt``;
    and so does a tensor whose length or gradient is 0, which would otherwise never move.
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
            "adapt": None,
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
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            if parameters:
                self._update(parameters, group)
        return loss

    def _update(self, parameters: list[Tensor], group: ParameterGroup) -> None:
        """All tensors of a group together, which on a GPU is some ten launches instead of ten for each tensor."""
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        for parameter in parameters:
            if "momentum_buffer" not in self.state[parameter]:
                self.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        velocities = [self.state[parameter]["momentum_buffer"] for parameter in parameters]
        changes = torch._foreach_add(gradients, parameters, alpha=group["weight_decay"])
        torch._foreach_mul_(changes, list(self._local_rates(parameters, gradients, group).unbind()))
        torch._foreach_mul_(velocities, group["momentum"])
        torch._foreach_add_(velocities, changes, alpha=group["lr"])
        torch._foreach_sub_(parameters, velocities)

    @staticmethod
    def _local_rates(parameters: list[Tensor], gradients: list[Tensor], group: ParameterGroup) -> Float[Tensor, "n"]:
        adapts = [parameter.ndim > 1 if group["adapt"] is None else group["adapt"] for parameter in parameters]
        lengths = torch.stack(torch._foreach_norm(parameters))
        slopes = torch.stack(torch._foreach_norm(gradients))
        local = group["trust_coefficient"] * lengths / (slopes + group["weight_decay"] * lengths)
        adapted = constant(tuple(adapts), local.device, torch.bool) & (lengths > 0) & (slopes > 0)
        return torch.where(adapted, local, 1.0)


def learning_rate(
    step: int, total_steps: int, base: float, schedule: ScheduleConfig, steps_per_epoch: float = 1.0
) -> float:
    """Learning rate of optimiser step ``step`` = 0, 1, ... of ``total_steps``; no state, so resuming is a number.

    Warm-up: base * (t + 1) / warmup for t below warmup, so that its last step has the base rate already. Then
    ``constant``: base. ``cosine``: base * (1 + cos(pi * progress)) / 2, where progress runs from 0 at the end of the
    warm-up to 1 at the end of training. ``step``: base * gamma^(milestones reached). t counts steps, or whole epochs
    with ``by_epoch``.

    Raises:
        UsageError: a step or length that makes no sense.
    """
    if step < 0 or total_steps < 1 or steps_per_epoch <= 0:
        raise UsageError(f"no learning rate for step {step} of {total_steps} with {steps_per_epoch} steps per epoch")
    ticks_per_step = 1 / steps_per_epoch if schedule.by_epoch else 1.0
    ticks_per_unit = ticks_per_step * (steps_per_epoch if schedule.unit == "epochs" else 1.0)
    now = math.floor(step / steps_per_epoch) if schedule.by_epoch else step
    warmup, total = schedule.warmup * ticks_per_unit, total_steps * ticks_per_step
    if now < warmup:
        return base * min((now + 1) / warmup, 1.0)
    if schedule.name == "constant":
        return base
    if schedule.name == "step":
        reached = sum(now >= milestone * ticks_per_unit for milestone in schedule.milestones)
        return float(base * schedule.gamma**reached)
    progress = min((now - warmup) / max(total - warmup, 1e-9), 1.0)
    return base * (1 + math.cos(math.pi * progress)) / 2
