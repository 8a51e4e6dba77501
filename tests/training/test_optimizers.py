import copy
import math
from typing import Any

import pytest
import torch
from torch import nn

from dapg.core.errors import UsageError
from dapg.core.train_config import OptimizerConfig, ScheduleConfig
from dapg.training.optimizers import LARS, build_optimizer, learning_rate


def network(seed: int = 0) -> nn.Sequential:
    built = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2)).double()
    generator = torch.Generator().manual_seed(seed)
    for parameter in built.parameters():
        nn.init.normal_(parameter, generator=generator)
    return built


def groups_of(module: nn.Module, lr: float = 0.1, weight_decay: float = 1e-3) -> list[dict[str, object]]:
    """Weights with decay, biases and norms without."""
    weights = [parameter for parameter in module.parameters() if parameter.ndim > 1]
    others = [parameter for parameter in module.parameters() if parameter.ndim <= 1]
    return [
        {"params": weights, "lr": lr, "weight_decay": weight_decay},
        {"params": others, "lr": lr, "weight_decay": 0.0},
    ]


def run(module: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
    generator = torch.Generator().manual_seed(9)
    for _ in range(steps):
        inputs = torch.randn(8, 3, generator=generator, dtype=torch.float64)
        optimizer.zero_grad()
        module(inputs).square().mean().backward()
        optimizer.step()


def test_lars_against_the_papers_equation_in_plain_numbers() -> None:
    """Two tensors, three steps with changing rate, everything in Python floats."""
    weight, bias = [0.6, -0.8], [0.5]
    rates, gradients = [0.1, 0.2, 0.05], [([0.3, 0.4], [1.0]), ([-1.0, 0.5], [0.2]), ([0.0, 2.0], [-0.4])]
    tensors = [torch.tensor(weight, dtype=torch.float64), torch.tensor(bias, dtype=torch.float64)]
    optimizer = LARS(
        [{"params": [tensors[0]], "adapt": True}, {"params": [tensors[1]], "adapt": False, "weight_decay": 0.0}],
        lr=1.0,
        momentum=0.9,
        weight_decay=0.01,
        trust_coefficient=0.02,
    )
    velocity_w, velocity_b = [0.0, 0.0], [0.0]
    for rate, (slope_w, slope_b) in zip(rates, gradients, strict=True):
        for group in optimizer.param_groups:
            group["lr"] = rate
        tensors[0].grad = torch.tensor(slope_w, dtype=torch.float64)
        tensors[1].grad = torch.tensor(slope_b, dtype=torch.float64)
        optimizer.step()
        length, steepness = math.hypot(*weight), math.hypot(*slope_w)
        local = 0.02 * length / (steepness + 0.01 * length)
        velocity_w = [
            0.9 * v + rate * local * (g + 0.01 * w) for v, g, w in zip(velocity_w, slope_w, weight, strict=True)
        ]
        weight = [w - v for w, v in zip(weight, velocity_w, strict=True)]
        velocity_b = [0.9 * v + rate * g for v, g in zip(velocity_b, slope_b, strict=True)]
        bias = [b - v for b, v in zip(bias, velocity_b, strict=True)]
        assert tensors[0].tolist() == pytest.approx(weight, rel=1e-12)
        assert tensors[1].tolist() == pytest.approx(bias, rel=1e-12)


def test_lars_moves_a_weight_by_its_share_whatever_the_gradients_size() -> None:
    for scale in (1e-4, 1.0, 1e4):
        weight = torch.tensor([[3.0, 4.0]])
        optimizer = LARS([weight], lr=1.0, momentum=0.0, trust_coefficient=0.001)
        weight.grad = torch.tensor([[scale, 0.0]])
        optimizer.step()
        assert (weight - torch.tensor([[3.0, 4.0]])).norm().item() == pytest.approx(0.005, rel=1e-3)


def test_lars_does_not_freeze_or_break_on_zeros() -> None:
    zero, still = torch.zeros(1, 2), torch.ones(1, 2)
    optimizer = LARS([zero, still], lr=0.1, momentum=0.0)
    zero.grad, still.grad = torch.tensor([[1.0, -1.0]]), torch.zeros(1, 2)
    optimizer.step()
    assert zero.flatten().tolist() == pytest.approx([-0.1, 0.1])
    assert still.flatten().tolist() == [1.0, 1.0]


def test_lars_leaves_biases_and_norms_alone_unless_told() -> None:
    moved = []
    for adapt in (None, False, True):
        bias = torch.ones(3)
        optimizer = LARS([{"params": [bias], "adapt": adapt}], lr=1.0, momentum=0.0, trust_coefficient=0.01)
        bias.grad = torch.full((3,), 0.5)
        optimizer.step()
        moved.append(1 - bias[0].item())
    assert moved == pytest.approx([0.5, 0.5, 0.01], abs=1e-6)


def test_lars_with_adaptation_off_is_sgd() -> None:
    one, two = network(), network()
    run(one, LARS([{"params": one.parameters(), "adapt": False}], lr=0.05, momentum=0.9, weight_decay=0.01), 4)
    run(two, torch.optim.SGD(two.parameters(), lr=0.05, momentum=0.9, weight_decay=0.01), 4)
    for mine, theirs in zip(one.parameters(), two.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "lars"])
def test_saving_and_continuing_equals_going_on(name: Any) -> None:
    straight, resumed = network(), network()
    first = build_optimizer(OptimizerConfig(name), groups_of(straight))
    second = build_optimizer(OptimizerConfig(name), groups_of(resumed))
    run(straight, first, 3)
    run(resumed, second, 3)
    state = copy.deepcopy(second.state_dict())
    third = build_optimizer(OptimizerConfig(name), groups_of(resumed, 0.7, 0.5))
    third.load_state_dict(state)
    run(straight, first, 2)
    run(resumed, third, 2)
    for mine, theirs in zip(straight.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize(
    "name, reference",
    [
        ("sgd", lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.8, nesterov=True, weight_decay=0.01)),
        ("adam", lambda p: torch.optim.Adam(p, lr=0.1, betas=(0.7, 0.9), eps=1e-6, weight_decay=0.01)),
        ("adamw", lambda p: torch.optim.AdamW(p, lr=0.1, betas=(0.7, 0.9), eps=1e-6, weight_decay=0.01)),
    ],
)
def test_settings_reach_the_optimiser(name: Any, reference: Any) -> None:
    one, two = network(), network()
    config = OptimizerConfig(
        name, 0.1, weight_decay=0.01, momentum=0.8, nesterov=name == "sgd", beta_1=0.7, beta_2=0.9, epsilon=1e-6
    )
    run(one, build_optimizer(config, [{"params": one.parameters()}]), 3)
    run(two, reference(two.parameters()), 3)
    for mine, theirs in zip(one.parameters(), two.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_groups_keep_their_rates_and_frozen_parameters_stay_out() -> None:
    module = network()
    module[0].requires_grad_(False)
    groups: list[dict[str, Any]] = [
        {"params": module[0].parameters()},
        {"params": module[3].parameters(), "lr": 0.5},
        {"params": module[1].parameters()},
    ]
    optimizer = build_optimizer(OptimizerConfig(lr=0.1, weight_decay=0.3), groups)
    assert [(group["lr"], group["base_lr"], group["weight_decay"]) for group in optimizer.param_groups] == [
        (0.5, 0.5, 0.3),
        (0.1, 0.1, 0.3),
    ]
    with pytest.raises(UsageError, match="nothing to train"):
        build_optimizer(OptimizerConfig(), [{"params": module[0].parameters()}])


def test_bad_settings_are_refused() -> None:
    groups = [{"params": list(network().parameters())}]
    bad: Any
    for bad, message in (
        ({"name": "sgd", "lr": -1.0}, "learning rate"),
        ({"name": "sgd", "lr": float("nan")}, "learning rate"),
        ({"name": "adam", "nesterov": True}, "nesterov"),
        ({"name": "adam", "beta_1": 1.5}, "beta"),
        ({"name": "lars", "trust_coefficient": 0.0}, "trust_coefficient"),
    ):
        with pytest.raises(UsageError, match=message):
            build_optimizer(OptimizerConfig(**bad), groups)
    misspelt = OptimizerConfig()
    object.__setattr__(misspelt, "name", "adma")  # past the type check that tests switch on
    with pytest.raises(UsageError, match="did you mean 'adam'"):
        build_optimizer(misspelt, groups)


def test_cosine_by_hand() -> None:
    rates = [learning_rate(step, 8, 2.0, ScheduleConfig()) for step in (0, 2, 4, 8, 20)]
    assert rates == pytest.approx([2.0, 1 + 2**-0.5, 1.0, 0.0, 0.0])


def test_warm_up_by_hand() -> None:
    schedule = ScheduleConfig(unit="steps", warmup=4.0)
    assert [learning_rate(step, 12, 1.0, schedule) for step in (0, 1, 3, 4, 8)] == pytest.approx(
        [0.25, 0.5, 1.0, 1.0, 0.5]
    )
    assert learning_rate(7, 8, 3.0, ScheduleConfig("constant", "steps", 10.0)) == pytest.approx(2.4)
    halves = ScheduleConfig("constant", "steps", 2.5)
    assert [learning_rate(step, 9, 1.0, halves) for step in range(4)] == pytest.approx([0.4, 0.8, 1.0, 1.0])


def test_epochs_are_so_many_steps() -> None:
    """Two epochs of warm-up and a milestone after three, at 5 and at 2.5 steps an epoch, against lengths in steps."""
    epochs = ScheduleConfig("step", "epochs", 2.0, (3.0,), 0.1)
    for per_epoch, warmup, milestone in ((5.0, 10.0, 15.0), (2.5, 5.0, 7.5)):
        steps = ScheduleConfig("step", "steps", warmup, (milestone,), 0.1)
        for step in range(30):
            expected = learning_rate(step, 30, 1.0, steps)
            assert learning_rate(step, 30, 1.0, epochs, per_epoch) == pytest.approx(expected)


def test_the_published_agw_schedule() -> None:
    """81 epochs at 0.1: rise over ten, fall at 20 and 50, the rate held for the seven steps of an epoch."""
    schedule = ScheduleConfig("step", "epochs", 10.0, (20.0, 50.0), 0.1, by_epoch=True)
    expected = [0.1 * (e + 1) / 10 if e < 10 else 0.1 if e < 20 else 0.01 if e < 50 else 0.001 for e in range(81)]
    rates = [learning_rate(step, 81 * 7, 0.1, schedule, 7.0) for step in range(81 * 7)]
    assert rates == pytest.approx([rate for rate in expected for _ in range(7)])


def test_cosine_held_within_an_epoch() -> None:
    """MoCo v2: base * (1 + cos(pi * epoch / epochs)) / 2."""
    rates = [learning_rate(step, 20, 1.0, ScheduleConfig(by_epoch=True), 5.0) for step in range(20)]
    expected = [(1 + math.cos(math.pi * epoch / 4)) / 2 for epoch in range(4)]
    assert rates == pytest.approx([rate for rate in expected for _ in range(5)])


def test_bad_schedules_are_refused() -> None:
    for bad, message in (
        ({"name": "step"}, "milestones"),
        ({"name": "step", "milestones": (5.0, 3.0)}, "milestones"),
        ({"name": "step", "milestones": (0.0, 3.0)}, "milestones"),
    ):
        with pytest.raises(UsageError, match=message):
            ScheduleConfig(**bad)
    for step, total in ((-1, 10), (0, 0)):
        with pytest.raises(UsageError, match="no learning rate"):
            learning_rate(step, total, 0.1, ScheduleConfig())
