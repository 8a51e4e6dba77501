"""Checks of a backbone: the feature map, gradients, weights from one generator; stem and stages where it has them."""

import copy
from dataclasses import fields

import torch
from torch import Tensor
from torch.nn import functional

from dapg.contracts.base import by_name, require, require_near
from dapg.core import plugins
from dapg.core.errors import UsageError
from dapg.core.rng import generator_from
from dapg.core.train_config import BackboneConfig
from dapg.methods.runs import backbone_settings
from dapg.models.backbones.base import Backbone, Pyramid
from dapg.models.two_stream import TwoStream, TwoStreamConfig

SIZES = ((256, 128), (288, 144), (96, 48))


def returns_a_map(name: str) -> None:
    """Of ``feature_dim`` channels, for every size of image that our scales have."""
    network = build(name).eval()
    for size in SIZES:
        with torch.no_grad():
            features = network(random_images(2, *size))
        require(features.ndim == 4, f"forward returns {tuple(features.shape)}, no map of channels, rows and columns")
        require(features.shape[:2] == (2, network.feature_dim), f"the map has {features.shape[1]} channels")
        require(features.isfinite().all() and features.std() > 0, "the map is not finite, or the same everywhere")


def does_not_depend_on_the_batch(name: str) -> None:
    """In evaluation mode, an image's map is the same alone."""
    network, images = build(name).eval(), random_images(3)
    with torch.no_grad():
        require_near(network(images)[1:2], network(images[1:2]), "an image's map depends on the batch around it")


def gradients_reach_every_parameter(name: str) -> None:
    """Those that are trained."""
    network = build(name).train()
    features = network(random_images(4))
    target = torch.randn(features.shape, generator=generator_from("target"))
    trained = {key: value for key, value in network.named_parameters() if value.requires_grad}
    loss = functional.mse_loss(features, target)
    gradients = torch.autograd.grad(loss, list(trained.values()), allow_unused=True)
    for key, gradient in zip(trained, gradients, strict=True):
        reached = gradient is not None and gradient.isfinite().all() and gradient.abs().max() > 0
        require(reached, f"no gradient reaches {key}")


def weights_depend_on_the_generator_alone(name: str) -> None:
    """Not on torch's global one, which is left alone; without a generator they are always the same."""
    kind = plugins.load("models.backbones", name, Backbone)
    state = torch.get_rng_state()
    first = build(name, "a").state_dict()
    require(torch.equal(state, torch.get_rng_state()), "torch's global generator is used")
    second, other = build(name, "a").state_dict(), build(name, "b").state_dict()
    require(all(torch.equal(first[key], second[key]) for key in first), "the same generator gives other weights")
    require(any(not torch.equal(first[key], other[key]) for key in first), "the generator is not used")
    fixed = [kind(_settings(name), None).state_dict() for _ in range(2)]
    require(all(torch.equal(fixed[0][key], fixed[1][key]) for key in first), "without a generator, weights differ")


def its_map_can_be_looked_at(name: str) -> None:
    """``map_module`` puts out what ``forward`` returns: that is what heat maps hook."""
    network, images, seen = build(name).eval(), random_images(1), list[Tensor]()
    network.map_module().register_forward_hook(lambda module, inputs, output: seen.append(output))
    with torch.no_grad():
        features = network(images)
        require(len(seen) == 1 and torch.equal(seen[0], features), "map_module does not put out the feature map")
        if _has_stem(network):
            network.trunk(network.stem(images))
            require(len(seen) == 2, "map_module is not run by trunk: heat maps of two-stream methods need it there")


def runs_two_streams(name: str) -> None:
    """A second stem with weights of its own, and the layers that both share; what has no stem says so in one line."""
    network, other, images = build(name, "a").eval(), build(name, "b").eval(), random_images(2)
    if not _has_stem(network):
        return
    with torch.no_grad():
        require_near(network.trunk(network.stem(images)), network(images), "trunk after stem is not forward")
        second = network.apply_stem(copy.deepcopy(other.stem_modules()), images)
        require_near(second, other.stem(images), "apply_stem does not run the modules it is given")
        require(not torch.equal(second, network.stem(images)), "apply_stem runs the stem's own modules")
        non_local = (0, 2, 3, 0) if network.stages() else (0, 0, 0, 0)
        streams = TwoStream(network, TwoStreamConfig(non_local=non_local), generator_from("blocks")).eval()
        both = streams(network, images[:1], images[1:])
    require(both.shape[:2] == (2, network.feature_dim), "two streams do not give one map per image")


def stages_make_up_the_trunk(name: str) -> None:
    """Of a pyramid: strides 4 to 32, the promised channels, and every parameter in the stem or in one stage."""
    network = build(name).eval()
    if not isinstance(network, Pyramid):
        return
    with torch.no_grad():
        x = network.stem(random_images(1, 128, 64))
        for (stage, blocks), stride in zip(network.stages().items(), (4, 8, 16, 32), strict=True):
            for block in blocks:
                x = block(x)
            expected = (network.stage_dims()[stage], 128 // stride, 64 // stride)
            require(x.shape[1:] == expected, f"{stage} puts out {tuple(x.shape[1:])}, not {expected}")
    parts = [*network.stem_modules(), *(block for blocks in network.stages().values() for block in blocks)]
    held = [id(parameter) for part in parts for parameter in part.parameters()]
    every = {id(parameter) for parameter in network.parameters()}
    require(len(held) == len(set(held)) and set(held) == every, "stem and stages do not hold every parameter once")


CHECKS = by_name(
    returns_a_map,
    does_not_depend_on_the_batch,
    gradients_reach_every_parameter,
    weights_depend_on_the_generator_alone,
    its_map_can_be_looked_at,
    runs_two_streams,
    stages_make_up_the_trunk,
)


def build(name: str, seed: str = "weights") -> Backbone:
    """An eighth of its width where it has one, else as it is."""
    return plugins.load("models.backbones", name, Backbone)(_settings(name), generator_from(seed))


def _settings(name: str) -> Backbone.Config:
    kind = plugins.load("models.backbones", name, Backbone)
    narrow = "width" in {field.name for field in fields(kind.Config)}
    settings: Backbone.Config = backbone_settings(BackboneConfig(name, width=0.125 if narrow else 1.0))
    return settings


def _has_stem(network: Backbone) -> bool:
    try:
        return bool(network.stem_modules())
    except UsageError:
        return False


def random_images(count: int, height: int = 96, width: int = 48) -> Tensor:
    """Normalised noise."""
    return torch.randn(count, 3, height, width, generator=generator_from("pictures"))
