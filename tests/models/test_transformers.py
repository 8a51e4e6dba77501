"""Vision transformers against torch's own layers and loops over places; every method trains on them."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dapg.contracts.methods import built, draws, some_batch
from dapg.core import plugins
from dapg.core.errors import UsageError
from dapg.core.rng import generator_from
from dapg.core.scales import Stage
from dapg.core.train_config import BackboneConfig
from dapg.core.types import Modality
from dapg.export.onnx_files import ONNX_TOLERANCE, FeatureNetwork, onnx_difference, write_onnx
from dapg.features.encoders import BackboneEncoder
from dapg.features.grad_cam import likeness_maps
from dapg.methods.finetuning._two_stream import TwoStreamSettings
from dapg.methods.finetuning.agw import AGW
from dapg.methods.runs import FOLDERS, backbone_settings, method_class
from dapg.models.backbones._swin import WINDOW, Merge, ShiftedWindows
from dapg.models.backbones._vit import ViT, grid_of
from dapg.models.backbones.base import Backbone
from dapg.models.backbones.swin_tiny import SwinTiny
from dapg.models.backbones.vit_small import ViTSmall
from dapg.models.blocks.initialise import initialise
from dapg.models.blocks.transformer import Block, LayerNorm
from dapg.models.two_stream import TwoStreamConfig


def images(count: int = 2, height: int = 96, width: int = 48) -> Tensor:
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(1))


def vit(**settings: Any) -> ViT:
    """One head, twelve blocks."""
    return ViTSmall(ViTSmall.Config(width=0.1, **settings), generator_from("vit")).eval()


def swin() -> SwinTiny:
    return SwinTiny(SwinTiny.Config(width=0.1), generator_from("swin")).eval()


def made(module: Any, seed: str) -> Any:
    """On the CPU, with weights that are not zero anywhere."""
    initialise(module, generator_from(seed))
    with torch.no_grad():
        for number, parameter in enumerate(module.parameters()):
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator_from(seed, number)))
    return module


def test_a_block_is_torchs_encoder_layer() -> None:
    block = made(Block(64, 2, layer_scale=False), "block")
    other = nn.TransformerEncoderLayer(64, 2, 256, 0.0, "gelu", 1e-6, batch_first=True, norm_first=True)
    names = {
        "self_attn.in_proj_weight": "attn.qkv.weight",
        "self_attn.in_proj_bias": "attn.qkv.bias",
        "self_attn.out_proj.weight": "attn.proj.weight",
        "self_attn.out_proj.bias": "attn.proj.bias",
        **{f"linear{n}.{kind}": f"mlp.fc{n}.{kind}" for n in (1, 2) for kind in ("weight", "bias")},
        **{f"norm{n}.{kind}": f"norm{n}.{kind}" for n in (1, 2) for kind in ("weight", "bias")},
    }
    other.load_state_dict({there: block.state_dict()[here] for there, here in names.items()})
    x = torch.randn(3, 9, 64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(block(x), other.train()(x), atol=1e-5, rtol=1e-4)


def test_norms_keep_single_precision_under_autocast() -> None:
    norm, x = LayerNorm(32), 1000 + torch.randn(4, 32, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        mixed = norm(x)
        assert mixed.dtype == torch.float32
        assert vit()(images()).dtype == torch.float32
    torch.testing.assert_close(mixed, nn.functional.layer_norm(x, (32,)))
    assert norm.double()(x.double()).dtype == torch.float64


def test_the_map_has_the_mean_that_was_asked_for() -> None:
    """Patches, class token or both, from one set of weights."""
    networks = {tokens: vit(tokens=tokens) for tokens in ("patches", "class", "both")}
    seen = list[Tensor]()
    networks["class"].norm.register_forward_hook(lambda module, inputs, output: seen.append(output))
    with torch.no_grad():
        pooled = {tokens: network(images()).mean(dim=(2, 3)) for tokens, network in networks.items()}
    torch.testing.assert_close(pooled["class"], seen[0][:, 0])
    torch.testing.assert_close(pooled["patches"], seen[0][:, 1:].mean(dim=1))
    torch.testing.assert_close(pooled["both"], pooled["class"] + pooled["patches"])


@pytest.mark.parametrize(
    "settings, size, grid, positions",
    [
        ({}, (256, 128), (16, 8), 129),
        ({"stride": 12}, (256, 128), (21, 10), 211),
        ({}, (384, 128), (24, 8), 129),
        ({"variant": "ics"}, (256, 128), (16, 8), 129),
        ({"variant": "dinov2"}, (256, 128), (18, 9), 163),
        ({"variant": "pass"}, (256, 128), (16, 8), 129),
    ],
)
def test_grids_of_patches(settings: Any, size: tuple[int, int], grid: tuple[int, int], positions: int) -> None:
    network = vit(**settings)
    with torch.no_grad():
        assert network(images(1, *size)).shape == (1, 64, *grid)
    assert network.pos_embed.shape[1] == positions


def test_grids_by_their_count() -> None:
    assert [grid_of(count) for count in (1369, 196, 128, 210, 162)] == [(37, 37), (14, 14), (16, 8), (21, 10), (18, 9)]


def test_positions_are_places_of_the_image() -> None:
    """A network of another size of image sees the same positions, in between."""
    network = vit()
    rows = torch.linspace(-1, 1, 16)[:, None].expand(16, 8)
    with torch.no_grad():
        network.pos_embed[0, 1:] = rows.reshape(-1, 1)
        places = network.patch_embed.proj(torch.zeros(1, 3, 128, 64))
    seen = list[Tensor]()
    network.blocks[0].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    network(torch.zeros(1, 3, 128, 64))
    added = (seen[0][:, 1:] - places.flatten(2).transpose(1, 2))[0, :, 0].unflatten(0, (8, 4))
    torch.testing.assert_close(added, added[:, :1].expand(8, 4))
    assert (added[1:, 0] > added[:-1, 0]).all()
    torch.testing.assert_close(added[:, 0], -added.flip(0)[:, 0])


@pytest.mark.parametrize("shift", [0, WINDOW // 2])
def test_windows_by_a_loop_over_places(shift: int) -> None:
    """Each place sees those of its window that were its neighbours in the image, filled up with zeros."""
    windows = made(ShiftedWindows(32, 1, shift), "windows").double()
    height, width = 10, 8
    x = torch.randn(1, height, width, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    padded = torch.zeros(14, 14, 32, dtype=torch.float64)
    padded[:height, :width] = x[0]
    attention = windows.w_msa
    query, key, value = attention.qkv(padded).chunk(3, dim=-1)

    def window(place: tuple[int, int]) -> tuple[tuple[int, int], ...]:
        """Which window a place is in after the map was rolled, and from which border it came."""
        moved = [(coordinate - shift) % 14 for coordinate in place]
        return tuple((position // WINDOW, int(position >= 14 - shift)) for position in moved)

    places = [(row, column) for row in range(14) for column in range(14)]
    expected = torch.zeros(height, width, 32, dtype=torch.float64)
    for row, column in places:
        if row >= height or column >= width:
            continue
        near = [place for place in places if window(place) == window((row, column))]
        scores = []
        for other in near:
            down, right = (((place - shift) % 14) % WINDOW for place in (row, column))
            down_other, right_other = (((place - shift) % 14) % WINDOW for place in other)
            offset = (down - down_other + WINDOW - 1) * (2 * WINDOW - 1) + right - right_other + WINDOW - 1
            likeness = query[row, column] @ key[other] / 32**0.5
            scores.append(likeness + attention.relative_position_bias_table[offset, 0])
        weights = torch.stack(scores).softmax(dim=0)
        seen = torch.stack([value[other] for other in near])
        expected[row, column] = attention.proj(weights @ seen)
    torch.testing.assert_close(windows(x)[0], expected, atol=1e-9, rtol=1e-7)


def test_merging_is_torchs_unfold() -> None:
    merge = made(Merge(4), "merge")
    x = torch.randn(2, 5, 4, 4, generator=torch.Generator().manual_seed(0))
    filled = nn.functional.pad(x.permute(0, 3, 1, 2), (0, 0, 0, 1))
    columns = nn.functional.unfold(filled, 2, stride=2).transpose(1, 2)
    expected = merge.reduction(merge.norm(columns)).unflatten(1, (3, 2))
    torch.testing.assert_close(merge(x), expected)


def test_the_balance_of_looks_and_meaning_is_a_setting() -> None:
    settings = [backbone_settings(BackboneConfig("swin_tiny", width=0.1, semantic_weight=w)) for w in (0.2, 1.0)]
    kinds: list[Any] = [SwinTiny(chosen, generator_from("swin")).eval() for chosen in settings]  # type: ignore[arg-type]
    with torch.no_grad():
        for network in kinds:
            for layer in network.semantic_embed_w:
                layer.bias.fill_(0.5)
        some, all_of_it = (network(images()) for network in kinds)
    assert not torch.allclose(some, all_of_it, atol=1e-3)


def test_settings_reach_the_network_and_others_are_refused() -> None:
    settings = backbone_settings(BackboneConfig("vit_small", width=0.1, variant="pass", stride=12, tokens="class"))
    assert settings == ViTSmall.Config(width=0.1, variant="pass", stride=12, tokens="class")
    with pytest.raises(UsageError, match="variant"):
        backbone_settings(BackboneConfig("vit_small", variant="dino"))
    with pytest.raises(UsageError, match="has no setting tokens"):
        backbone_settings(BackboneConfig("resnet18", tokens="class"))


NETWORKS: dict[str, Callable[[], Backbone]] = {"vit": vit, "swin": swin}
METHODS = [(stage, name) for stage, folder in FOLDERS.items() for name in plugins.names(folder)]
ALWAYS = (("pretrain", "mocov2"), ("align", "dapg_align"), ("finetune", "agw"))
"""That train on the slower of the two by default; the others in the slow tests."""
CASES = [("vit", *method) for method in METHODS]
CASES += [
    pytest.param("swin", *method, marks=() if method in ALWAYS else pytest.mark.slow)  # type: ignore[misc]
    for method in METHODS
]


@pytest.mark.parametrize(("kind", "stage", "name"), CASES)
def test_every_method_trains_on_them(kind: str, stage: Stage, name: str) -> None:
    """Without non-local blocks, which need stages; every stem and block gets a gradient."""
    backbone = NETWORKS[kind]()
    config = method_class(stage, name).Config()
    if name == "deen":
        with pytest.raises(UsageError, match="has no stages"), built(stage, name, config, backbone):
            pass
        return
    if isinstance(config, TwoStreamSettings):
        if any(config.network.non_local):
            with (
                pytest.raises(UsageError, match="no stages that non-local blocks could follow"),
                built(stage, name, config, backbone),
            ):
                pass
        config = replace(config, network=replace(config.network, non_local=(0, 0, 0, 0)))
    with built(stage, name, config, backbone) as method:
        result = method.train()(some_batch(), draws(0))
        result.loss.backward()
        assert result.loss.isfinite()
        silent = [key for key, value in method.named_parameters() if value.requires_grad and value.grad is None]
        assert not silent
        for modality in Modality:
            features = method.eval().encode(images(3, *method.input_size), modality)[method.headline]
            torch.testing.assert_close(features.norm(dim=1), torch.ones(3))


@pytest.mark.parametrize("kind", NETWORKS)
def test_heat_maps_look_at_patches(kind: str) -> None:
    encoder = BackboneEncoder(NETWORKS[kind](), (96, 48), torch.device("cpu"))
    bytes_ = torch.randint(0, 256, (2, 3, 96, 48), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    others = encoder.encode(bytes_, Modality.VISIBLE)["backbone"].flip(0)
    maps = likeness_maps(encoder, bytes_, Modality.VISIBLE, "backbone", others)
    assert maps.shape[1:] == encoder.backbone(images()).shape[2:]
    assert float(maps.max()) == 1


@pytest.mark.slow
@pytest.mark.parametrize("kind", NETWORKS)
def test_they_run_in_onnxruntime(kind: str, tmp_path: Path) -> None:
    """For any number of images, as one stream of AGW."""
    pytest.importorskip("onnxscript")
    config = AGW.Config(network=TwoStreamConfig(non_local=(0, 0, 0, 0)))
    with built("finetune", "agw", config, NETWORKS[kind]()) as method:
        network = FeatureNetwork(method.eval(), Modality.INFRARED)
        write_onnx(network, (96, 48), tmp_path / "infrared.onnx", {})
        assert onnx_difference(network, (96, 48), tmp_path / "infrared.onnx") <= ONNX_TOLERANCE
