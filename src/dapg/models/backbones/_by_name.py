"""The backbone that a setting names: a plug-in, or a network of timm."""

from dapg.core import plugins
from dapg.models.backbones._timm import PREFIX, timm_class
from dapg.models.backbones.base import Backbone


def backbone_class(name: str) -> type[Backbone]:
    """The backbone plug-in of a name, or timm's network where that begins with ``timm:``.

    Raises:
        UsageError: there is none.
    """
    if name.startswith(PREFIX):
        return timm_class(name.removeprefix(PREFIX))
    return plugins.load("models.backbones", name, Backbone)
