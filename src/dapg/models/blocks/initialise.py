"""Weights from an explicit generator: modules are built without drawing, then filled in a fixed order."""

from typing import Protocol, runtime_checkable

import torch
from torch import nn

from dapg.core.rng import generator_from


@runtime_checkable
class DrawsItself(Protocol):
    """A module with parameters of its own, beside those of the layers in it."""

    def draw(self, generator: torch.Generator) -> None:
        """Fill them."""
        ...


def initialise(module: nn.Module, generator: torch.Generator | None) -> None:
    """Move a module built on the meta device to the CPU and fill every weight of it.

    Building under ``with torch.device("meta")`` and filling here leaves torch's global generator untouched, so that
    equal seeds give equal weights whatever was built before. Convolutions: normal of variance 2 / fan-out (He et al.
    2015, as torchvision's ResNet and MobileNetV2); linear layers and attention: normal of variance 1 / fan-in; every
    bias 0; norms: weight 1, bias 0. A module with a method ``draw`` fills its own parameters.

    Args:
        module: convolutions, linear layers, attention and norms, in any nesting.
        generator: source of the draws; None takes a fixed seed, for weights that are overwritten right after.

    Raises:
        TypeError: a layer with weights of another kind; its file has to say how it starts.
    """
    generator = generator if generator is not None else generator_from("initialise", 0)
    module.to_empty(device="cpu")
    for layer in module.modules():
        if isinstance(layer, DrawsItself):
            layer.draw(generator)
        elif isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu", generator=generator)
        elif isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=layer.in_features**-0.5, generator=generator)
        elif isinstance(layer, nn.MultiheadAttention):
            assert layer.in_proj_weight is not None  # queries, keys and values of one length
            nn.init.normal_(layer.in_proj_weight, std=layer.embed_dim**-0.5, generator=generator)
            nn.init.zeros_(layer.in_proj_bias)
        elif isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d | nn.InstanceNorm2d | nn.LayerNorm):
            layer.reset_parameters()  # constants, nothing is drawn
            continue
        elif any(True for _ in layer.parameters(recurse=False)) or any(True for _ in layer.buffers(recurse=False)):
            raise TypeError(f"no rule for the first weights of a {type(layer).__name__}")
        if isinstance(layer, nn.Conv2d | nn.Linear) and layer.bias is not None:
            nn.init.zeros_(layer.bias)
