"""The shape that oneDNN's bf16 kernel for AMX misreads is computed in float32, everything else as ever."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from dapg.core import plugins
from dapg.core.rng import generator_from
from dapg.models import pn_gan
from dapg.models.backbones.base import Backbone
from dapg.models.backbones.resnet18 import ResNet18
from dapg.models.blocks.convolution import Convolution


def layer(in_channels: int = 64, stride: int = 2) -> Convolution:
    made = Convolution(in_channels, 16, 3, stride, padding=1, bias=False)
    nn.init.normal_(made.weight, std=0.05, generator=generator_from("layer"))
    return made


def pictures(width: int, channels: int = 64) -> torch.Tensor:
    return torch.randn(8, channels, 4, width, generator=generator_from("input", width)).to(torch.bfloat16)


def in_bf16(run: Callable[[torch.Tensor], torch.Tensor], images: torch.Tensor) -> torch.Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        return run(images)


@pytest.mark.parametrize("width", [1, 2])
def test_a_narrow_input_is_computed_in_float32_and_rounded(width: int) -> None:
    """Weights are not rounded to bf16 first, which is how the guard is told from the kernel it avoids."""
    guarded, images = layer(), pictures(width)
    exact = nn.functional.conv2d(images.float(), guarded.weight, stride=2, padding=1)
    assert torch.equal(in_bf16(guarded, images), exact.to(torch.bfloat16))
    in_half = layer().to(torch.bfloat16)
    of_half = nn.functional.conv2d(images.float(), in_half.weight.float(), stride=2, padding=1)
    assert torch.equal(in_half(images), of_half.to(torch.bfloat16))
    assert not torch.equal(of_half, exact), "the two are told apart"


@pytest.mark.parametrize("made", [{"width": 3}, {"stride": 1}, {"channels": 32}])
def test_every_other_shape_is_left_to_torch(made: dict[str, int]) -> None:
    channels = made.get("channels", 64)
    one, images = layer(channels, made.get("stride", 2)), pictures(made.get("width", 2), channels)
    plain = nn.Conv2d(channels, 16, 3, made.get("stride", 2), padding=1, bias=False)
    plain.load_state_dict(one.state_dict())
    assert not one._would_misread(images)
    assert torch.equal(in_bf16(one, images), in_bf16(plain, images))
    assert torch.equal(one(images.float()), plain(images.float())), "and float32 always"


def test_gradients_of_the_guarded_layer_are_those_of_float32() -> None:
    guarded, images = layer(), pictures(2).float().requires_grad_()
    in_bf16(guarded, images).float().square().sum().backward()
    assert images.grad is not None
    assert guarded.weight.grad is not None
    ours = images.grad.clone(), guarded.weight.grad.clone()
    other, again = layer(), images.detach().clone().requires_grad_()
    other(again).square().sum().backward()
    assert again.grad is not None
    assert other.weight.grad is not None
    for mine, theirs in zip(ours, (again.grad, other.weight.grad), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=2e-2, atol=2e-2 * float(theirs.abs().max()))


def networks() -> dict[str, nn.Module]:
    """Every network of the package that has convolutions of stride 2."""
    kinds: dict[str, Any] = {
        name: plugins.load("models.backbones", name, Backbone) for name in plugins.names("models.backbones")
    }
    backbones = {name: kind(kind.Config(width=0.125), generator_from(name)) for name, kind in kinds.items()}
    configs = [pn_gan.GeneratorConfig(kind, width=4, blocks=1) for kind in ("residual", "attention")]
    return {**backbones, **{config.kind: pn_gan.build_generator(config) for config in configs}}


@pytest.mark.parametrize("name", networks())
def test_every_convolution_of_this_kernel_and_stride_is_guarded(name: str) -> None:
    strided = [
        module
        for module in networks()[name].modules()
        if isinstance(module, nn.Conv2d) and (module.kernel_size, module.stride) == ((3, 3), (2, 2))
    ]
    assert strided or name.startswith(("vit", "swin"))  # which have none
    assert all(isinstance(module, Convolution) for module in strided)


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_a_layer_repeated_gives_the_same_numbers(width: int) -> None:
    """Between the repeats memory is filled with NaN and given back, for the next output to lie on."""
    guarded, images = layer(), pictures(width)
    first = in_bf16(guarded, images)
    assert first.isfinite().all()
    for _ in range(30):
        torch.full((1 << 16,), float("nan"), dtype=torch.bfloat16)
        torch.full((first.numel(),), float("nan"), dtype=torch.bfloat16)
        assert torch.equal(in_bf16(guarded, images), first)


def test_a_resnet_on_the_smallest_pictures_meets_the_guard_and_repeats() -> None:
    network = ResNet18(ResNet18.Config(width=0.25, last_stride=2), generator_from("network")).eval()
    met = []
    for module in network.modules():
        if isinstance(module, Convolution):
            module.register_forward_pre_hook(lambda module, args: met.append(module._would_misread(args[0])))
    images = torch.randn(2, 3, 64, 32, generator=generator_from("pictures"))
    with torch.no_grad():
        outputs = [in_bf16(network, images) for _ in range(5)]
    assert sum(met) == 5, "the last stage's first convolution"
    assert all(torch.equal(output, outputs[0]) for output in outputs)
    torch.testing.assert_close(outputs[0].float(), network(images), rtol=0.1, atol=0.1)
