"""Any network of the package timm (extra ``timm``), by ``--backbone timm:NAME``.

timm is imported when such a network is built. Weights come from a file, as for every backbone; nothing is downloaded.
"""

import copy
import functools
import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dapg.core.errors import UsageError, nearest
from dapg.core.rng import generator_from
from dapg.models.backbones.base import Backbone, Converted

PREFIX = "timm:"


@functools.cache
def timm_class(name: str) -> type[Backbone]:
    """The backbone for timm's model of a name, without ``timm:``."""
    return type("Timm", (Timm,), {"model": name})


class Timm(Backbone):
    """The last features of a timm network as a map: of a transformer the grid of its patches. It has one stem."""

    model: ClassVar[str]

    @dataclass(frozen=True)
    class Config(Backbone.Config):
        """The name says everything."""

    def __init__(self, config: Config, generator: torch.Generator | None = None) -> None:
        """Build the network; timm draws its weights by torch's global generator, which is put back.

        Raises:
            UsageError: timm is not installed, has no such network, or its features are no map.
        """
        super().__init__(config, generator)
        generator = generator if generator is not None else generator_from("initialise", 0)
        seed = int(torch.randint(0, 2**31, (), generator=generator))
        with torch.inference_mode(False), torch.enable_grad(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network = _create(self.model)
            self.feature_dim = int(self.network.num_features)
            self._freeze_what_features_do_without()

    def _freeze_what_features_do_without(self) -> None:
        """Layers of timm's own head get no gradient, which data parallelism takes for an error in trained weights."""
        size = getattr(self.network, "default_cfg", {}).get("input_size", (3, 224, 224))
        shadow = copy.deepcopy(self).eval().to("meta")  # computes shapes only
        shadow(torch.empty(1, *size, device="meta")).sum().backward()
        for parameter, dry in zip(self.parameters(), shadow.parameters(), strict=True):
            parameter.requires_grad_(dry.grad is not None)

    @property
    def architecture(self) -> str:
        """By which it is built again."""
        return PREFIX + self.model

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
        """Feature map of normalised images.

        Raises:
            UsageError: the network's features are no map, nor tokens of one.
        """
        features = self.network.forward_features(images)
        if not isinstance(features, Tensor):
            raise UsageError(f"{self.architecture} gives several features, not one map")
        if features.ndim == 4:
            return features if features.shape[1] == self.feature_dim else features.movedim(-1, 1)
        if features.ndim != 3:
            raise UsageError(f"{self.architecture} gives features of shape {tuple(features.shape)}, which are no map")
        patches = features[:, int(getattr(self.network, "num_prefix_tokens", 0)) :].transpose(1, 2)
        rows = round((patches.shape[2] * images.shape[2] / images.shape[3]) ** 0.5)
        return torch.unflatten(patches, 2, (rows, -1))

    def convert(self, tensors: Mapping[str, Tensor]) -> Converted:
        """Timm's own names are those of the network within."""
        return Converted({f"network.{name}": tensor for name, tensor in tensors.items()}, frozenset(tensors))


def _create(name: str) -> Any:
    try:
        timm = importlib.import_module("timm")
    except (ImportError, RuntimeError) as error:  # torchvision, which it imports, may not fit this torch
        reason = " ".join(str(error).split())
        raise UsageError(f"{PREFIX}{name} needs the extra `timm` ({reason}): pip install 'dapg[timm]'") from error
    known = list(timm.list_models())
    if name.split(".")[0] not in known:
        raise UsageError(f"timm has no model {name!r}{nearest(name, known)}")
    try:  # transformers take images of other sizes where they are told so
        network = timm.create_model(name, pretrained=False, num_classes=0, dynamic_img_size=True)
    except TypeError:
        network = timm.create_model(name, pretrained=False, num_classes=0)
    assert isinstance(network, nn.Module)
    return network
