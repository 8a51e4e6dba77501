"""Published files of transformers, by key names and shapes written down from their code: made here, and read."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dapg.core import plugins
from dapg.core.rng import generator_from
from dapg.core.train_config import BackboneConfig
from dapg.methods.runs import backbone_settings
from dapg.models.backbones._vit import ViT, resized_positions
from dapg.models.backbones.base import Backbone
from dapg.models.backbones.swin_tiny import SwinTiny
from dapg.models.backbones.vit_small import ViTSmall
from dapg.models.weights.backbone_weights import load_backbone

Shapes = dict[str, tuple[int, ...]]
ICS: Shapes = {
    "patch_embed.conv.0.weight": (64, 3, 7, 7),
    **{f"patch_embed.conv.{place}.weight": (64, 64, 3, 3) for place in (3, 6)},
    **{
        f"patch_embed.conv.{place}.{half}.{kind}": (32,)
        for place in (1, 4)
        for half, kinds in (("IN", "weight bias"), ("BN", "weight bias running_mean running_var"))
        for kind in kinds.split()
    },
    **{f"patch_embed.conv.7.{kind}": (64,) for kind in ("weight", "bias", "running_mean", "running_var")},
}
"""TransReID-SSL, transreid_pytorch/model/backbones/vit_pytorch.py: the convolutions of its ICS."""


def vit_shapes(channels: int, patch: int, positions: int, ics: bool = False) -> Shapes:
    """What every ViT file holds: twelve blocks, as timm names them."""
    blocks: Shapes = {}
    for number in range(12):
        for name, shape in (
            ("attn.qkv", (3 * channels, channels)),
            ("attn.proj", (channels, channels)),
            ("mlp.fc1", (4 * channels, channels)),
            ("mlp.fc2", (channels, 4 * channels)),
        ):
            blocks[f"blocks.{number}.{name}.weight"] = shape
            blocks[f"blocks.{number}.{name}.bias"] = shape[:1]
        for norm in ("norm1", "norm2"):
            blocks |= {f"blocks.{number}.{norm}.{kind}": (channels,) for kind in ("weight", "bias")}
    return {
        "cls_token": (1, 1, channels),
        "pos_embed": (1, positions, channels),
        "patch_embed.proj.weight": (channels, 64, patch // 2, patch // 2) if ics else (channels, 3, patch, patch),
        "patch_embed.proj.bias": (channels,),
        **(ICS if ics else {}),
        **blocks,
        "norm.weight": (channels,),
        "norm.bias": (channels,),
    }


def dinov2_shapes(channels: int, registers: bool) -> Shapes:
    """DINOv2's hub files: 518 x 518 pixels, 37 x 37 patches of 14, factors on the branches, a mask token."""
    scales: Shapes = {f"blocks.{number}.ls{branch}.gamma": (channels,) for number in range(12) for branch in (1, 2)}
    more: Shapes = {"mask_token": (1, channels), **({"register_tokens": (1, 4, channels)} if registers else {})}
    return vit_shapes(channels, 14, 1370) | scales | more


def pass_shapes(channels: int) -> Shapes:
    """PASS: three part tokens; the positions of the four tokens are apart from those of the patches."""
    tokens: Shapes = {f"part_token{part}": (1, 1, channels) for part in (1, 2, 3)}
    places: Shapes = {f"{name}_pos": (1, 1, channels) for name in ("cls", "part1", "part2", "part3")}
    return vit_shapes(channels, 16, 128) | tokens | places


def swin_shapes(channels: int, heads: int, window: int = 7) -> Shapes:
    """SOLIDER's Swin-T under mmdetection's names, with norms and balances of every stage, and index buffers."""
    shapes: Shapes = {
        "patch_embed.projection.weight": (channels, 3, 4, 4),
        **{f"patch_embed.{name}": (channels,) for name in ("projection.bias", "norm.weight", "norm.bias")},
    }
    for stage, depth in enumerate((2, 2, 6, 2)):
        wide = channels << stage
        for number in range(depth):
            block = f"stages.{stage}.blocks.{number}."
            for norm in ("norm1", "norm2"):
                shapes |= {f"{block}{norm}.{kind}": (wide,) for kind in ("weight", "bias")}
            for name, shape in (
                ("attn.w_msa.qkv", (3 * wide, wide)),
                ("attn.w_msa.proj", (wide, wide)),
                ("ffn.layers.0.0", (4 * wide, wide)),
                ("ffn.layers.1", (wide, 4 * wide)),
            ):
                shapes |= {f"{block}{name}.weight": shape, f"{block}{name}.bias": shape[:1]}
            shapes[f"{block}attn.w_msa.relative_position_bias_table"] = ((2 * window - 1) ** 2, heads << stage)
            shapes[f"{block}attn.w_msa.relative_position_index"] = (window**2, window**2)
        if stage < 3:
            shapes |= {f"stages.{stage}.downsample.norm.{kind}": (4 * wide,) for kind in ("weight", "bias")}
            shapes[f"stages.{stage}.downsample.reduction.weight"] = (2 * wide, 4 * wide)
        balance = channels << min(stage + 1, 3)
        for name in ("semantic_embed_w", "semantic_embed_b"):
            shapes |= {f"{name}.{stage}.weight": (balance, 2), f"{name}.{stage}.bias": (balance,)}
        shapes |= {f"norm{stage}.{kind}": (wide,) for kind in ("weight", "bias")}
    return shapes


def tensors(shapes: Shapes) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(7)
    return {name: 0.1 + 0.5 * torch.rand(shape, generator=generator) for name, shape in shapes.items()}


def prefixed(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in state.items()}


def flat(state: dict[str, Tensor]) -> Any:
    return state


def dino(state: dict[str, Tensor]) -> Any:
    """A DINO checkpoint's teacher beside a head; the student has gone."""
    return {"teacher": prefixed(state, "backbone.") | {"head.mlp.0.weight": torch.zeros(2, 2)}, "epoch": 100}


def reid(state: dict[str, Tensor]) -> Any:
    """A network fine-tuned by TransReID: its parts under ``base.``, with neck and classifier."""
    return prefixed(state, "base.") | {"bottleneck.weight": torch.ones(2), "classifier.weight": torch.zeros(3, 2)}


def timm(state: dict[str, Tensor]) -> Any:
    return state | {"head.weight": torch.zeros(1000, 64), "head.bias": torch.zeros(1000)}


FAMILIES: list[tuple[str, Shapes, Callable[[dict[str, Tensor]], Any], dict[str, Any], str]] = [
    ("TransReID-SSL", vit_shapes(64, 16, 129, ics=True), dino, {"variant": "ics"}, "teacher, backbone."),
    ("TransReID, overlapping", vit_shapes(64, 16, 211), reid, {"stride": 12}, "base."),
    ("timm", vit_shapes(64, 16, 197), timm, {}, "14 x 14 to 16 x 8"),
    ("PASS", pass_shapes(64), flat, {"variant": "pass"}, "flat"),
    ("DINOv2", dinov2_shapes(64, False), flat, {"variant": "dinov2"}, "37 x 37 to 18 x 9"),
    ("DINOv2, registers", dinov2_shapes(64, True), flat, {"variant": "dinov2-registers"}, "37 x 37 to 18 x 9"),
]


@pytest.mark.parametrize("family, shapes, wrap, settings, words", FAMILIES, ids=[case[0] for case in FAMILIES])
def test_files_of_vits_are_read_whole(
    family: str,
    shapes: Shapes,
    wrap: Callable[[dict[str, Tensor]], Any],
    settings: dict[str, Any],
    words: str,
    tmp_path: Path,
) -> None:
    state = tensors(shapes)
    torch.save(wrap(state), tmp_path / "file.pth")
    network = ViTSmall(ViTSmall.Config(width=0.1, **settings), generator_from("other"))
    report = load_backbone(network, tmp_path / "file.pth")
    assert report.missing == ()
    assert words in report.layout
    assert {name.split(".")[-1] for name in report.left_over} <= {"weight", "bias", "mask_token"}
    own = network.state_dict()
    for name, tensor in state.items():
        if name in own and name != "pos_embed":
            torch.testing.assert_close(own[name], tensor)
    expected_tokens(network, state)


def expected_tokens(network: ViT, state: dict[str, Tensor]) -> None:
    """Class token, further tokens and patches as the published forward passes put them together."""
    seen = list[Tensor]()
    network.eval().blocks[0].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        network(torch.zeros(1, 3, 256, 128))
        patches = network.patch_embed(torch.zeros(1, 3, 256, 128)).flatten(2).transpose(1, 2)
    if "part_token1" in state:
        names = ("cls", "part1", "part2", "part3")
        tokens = [state["cls_token"], *(state[f"part_token{part}"] for part in (1, 2, 3))]
        first = torch.cat([token + state[f"{name}_pos"] for token, name in zip(tokens, names, strict=True)], dim=1)
        positions = state["pos_embed"]
    else:
        first, positions = state["cls_token"] + state["pos_embed"][:, :1], state["pos_embed"][:, 1:]
        first = torch.cat([first, state.get("register_tokens", first[:, :0])], dim=1)
    side = round(positions.shape[1] ** 0.5)
    if positions.shape[1] != patches.shape[1]:
        positions = resized_positions(positions, (side, side), network.positions)
    torch.testing.assert_close(seen[0], torch.cat([first, patches + positions], dim=1))


@pytest.mark.parametrize("window", [7, 12])
def test_files_of_solider_are_read_whole(window: int, tmp_path: Path) -> None:
    """Norms and balances that no feature depends on are left over; tables of other windows are resized."""
    state = tensors(swin_shapes(32, 1, window))
    torch.save(dino(state), tmp_path / "swin.pth")
    network = SwinTiny(SwinTiny.Config(width=0.1), generator_from("other"))
    report = load_backbone(network, tmp_path / "swin.pth")
    assert report.missing == ()
    assert ("offsets resized from 23 x 23 to 13 x 13" in report.layout) == (window == 12)
    unused = ("norm0", "norm1", "norm2", "semantic_embed_w.3", "semantic_embed_b.3")
    for name in report.left_over:
        plain = name.removeprefix("backbone.")
        assert plain.startswith(unused) or plain.endswith("relative_position_index") or "head" in plain
    torch.testing.assert_close(network.semantic_embed_b[2].weight, state["semantic_embed_b.2.weight"])
    name = "blocks.5.attn.w_msa.qkv.weight"
    torch.testing.assert_close(network.layers[2].state_dict()[name], state[f"stages.2.{name}"])


@pytest.mark.parametrize(
    "name, settings, shapes",
    [
        ("vit_small", {}, vit_shapes(384, 16, 129)),
        ("vit_small", {"variant": "ics"}, vit_shapes(384, 16, 129, ics=True)),
        ("vit_base", {}, vit_shapes(768, 16, 129)),
        ("vit_small", {"variant": "dinov2"}, dinov2_shapes(384, False) | {"pos_embed": (1, 163, 384)}),
        ("swin_tiny", {}, swin_shapes(96, 3)),
    ],
)
def test_published_sizes(name: str, settings: dict[str, Any], shapes: Shapes) -> None:
    """At width 1 every tensor has the published name and shape; nothing is drawn."""
    kind = plugins.load("models.backbones", name, Backbone)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dapg.models.backbones._vit.initialise", lambda module, generator: None)
        patch.setattr("dapg.models.backbones._swin.initialise", lambda module, generator: None)
        network = kind(backbone_settings(BackboneConfig(name, **settings)), None)
    own = {
        key.replace("layers.", "stages.", 1) if key.startswith("layers.") else key: tuple(value.shape)
        for key, value in network.state_dict().items()
        if not key.endswith("num_batches_tracked")
    }
    assert own.items() <= shapes.items()
