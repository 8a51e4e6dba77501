"""CIL, CAJ and the PMWGCN reconstruction: what their views hold, what their losses add up to, what each switch does."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from dapg.augment.padded import PaddedViewConfig
from dapg.core.batch import Batch
from dapg.core.errors import UsageError
from dapg.core.images import IMAGENET_MEAN, IMAGENET_STD
from dapg.core.rng import SampleGenerator, generator_from
from dapg.core.types import Modality
from dapg.losses.enhanced_triplet import enhanced_triplet
from dapg.losses.js import js_divergence
from dapg.losses.triplet import weighted_regularised_triplet
from dapg.methods.base import DataFacts
from dapg.methods.finetuning.agw import AGW
from dapg.methods.finetuning.caj import CAJ
from dapg.methods.finetuning.cil import CIL
from dapg.methods.finetuning.deen import DEEN
from dapg.methods.finetuning.pmwgcn import PMWGCN
from dapg.models.backbones.resnet18 import ResNet18
from dapg.models.blocks.wavelet_graph import WaveletGraph

HEIGHT, WIDTH, COUNT = 32, 16, 8


def build(kind: type[Any], config: Any = None, **changes: Any) -> Any:
    config = kind.Config() if config is None else config
    views = replace(config.views, height=HEIGHT, width=WIDTH, padding=2)
    backbone = ResNet18(ResNet18.Config(width=0.125, last_stride=1), generator_from("backbone"))
    facts = DataFacts(50, (3, 5, 8, 9))
    return kind(replace(config, **{"views": views, **changes}), backbone, facts, generator_from("head"))


def some_batch() -> Batch:
    """Two visible and two infrared images of two persons; infrared ones are grey."""
    coarse = torch.rand(COUNT, 3, 8, 4, generator=generator_from("pictures"))
    coarse[2::4] = coarse[2::4].mean(dim=1, keepdim=True)
    coarse[3::4] = coarse[3::4].mean(dim=1, keepdim=True)
    images = torch.nn.functional.interpolate(coarse, size=(HEIGHT, WIDTH), mode="bilinear").mul(255).to(torch.uint8)
    modalities = torch.tensor([1, 1, 2, 2] * 2)
    persons = torch.tensor([5] * 4 + [9] * 4)
    return Batch(images, persons, modalities.clone(), modalities, torch.arange(COUNT))


def streams(count: int = COUNT) -> SampleGenerator:
    return SampleGenerator.for_step(0, 0, torch.arange(count))


def loss(method: Any) -> float:
    return method.train()(some_batch(), streams()).loss.item()


def pictures(views: Tensor) -> Tensor:
    """Normalised views back in [0, 1]."""
    return views * torch.tensor(IMAGENET_STD).view(3, 1, 1) + torch.tensor(IMAGENET_MEAN).view(3, 1, 1)


def is_grey(images: Tensor) -> Tensor:
    return (images - images[:, :1]).abs().flatten(1).amax(dim=1) < 1e-4


@pytest.mark.parametrize("kind", [CIL, CAJ, DEEN, PMWGCN])
def test_gradients_reach_both_stems_trunk_neck_and_classifier(kind: type[Any]) -> None:
    method = build(kind).train()
    method(some_batch(), streams()).loss.backward()
    reached = {name: value.grad for name, value in method.named_parameters() if value.requires_grad}
    for part in ("backbone.conv1", "two_stream.infrared_stem", "backbone.layer4", "neck", "classifier"):
        found = [grad for name, grad in reached.items() if name.startswith(part)]
        assert found, part
        assert all(grad is not None and grad.abs().max() > 0 for grad in found), part


@pytest.mark.parametrize("kind", [CIL, CAJ])
def test_every_published_slip_is_a_switch_that_changes_the_loss(kind: type[Any]) -> None:
    literal, ours = kind.paper(), kind.Config()
    switches = [key for key in vars(literal) if getattr(literal, key) != getattr(ours, key)]
    assert len(switches) >= 5
    for key in set(switches) - {"views", "saturate"}:  # erasing's colour and the cut-off have tests of their own
        change = {key: getattr(literal, key)}
        pairs = [(loss(opened(build(kind), scale)), loss(opened(build(kind, **change), scale))) for scale in (1, 8)]
        assert any(changed != pytest.approx(base, rel=1e-5) for base, changed in pairs), key


def opened(method: Any, scale: float) -> Any:
    """Non-local blocks that act, and features ``scale`` times as long.

    The anchor's own weight shows between short features, the published weights' vanishing between long ones.
    """
    for blocks in method.two_stream.non_local.values():
        for block in blocks:
            torch.nn.init.ones_(block.norm.weight)
    with torch.no_grad():
        for name, parameter in method.backbone.layer4.named_parameters():
            if "bn2" in name:
                parameter.mul_(scale)
    return method


# CIL


def test_consistency_has_augmixs_published_value() -> None:
    """logits_v[i, k] = cos(i + 2 k + 0.5 v); JS and 12 JS from the published AugMix loss."""
    i, v, k = torch.arange(3.0)[:, None, None], torch.arange(3.0)[:, None], torch.arange(5.0)
    value = js_divergence((i + 2 * k + 0.5 * v).cos().log_softmax(dim=2)).item()
    assert value == pytest.approx(0.0314966447, abs=1e-7)
    assert 12 * value == pytest.approx(0.3779597366, abs=1e-6)


@torch.no_grad()
def cil_by_hand(method: CIL) -> tuple[float, list[float]]:
    """Loss of a step written image by image, and the divergence of each image."""
    batch, generator = some_batch(), streams()
    rows = torch.tensor([0, 1, 4, 5]), torch.tensor([2, 3, 6, 7])
    warm = method.visible_triple(batch.images[rows[0]], generator.rows(rows[0]))
    cold = method.infrared_triple(batch.images[rows[1]], generator.rows(rows[1]))
    features, logits = method._embed(torch.cat(list(warm)), torch.cat(list(cold)))
    classes = torch.tensor([1, 1, 3, 3] * 2)  # of 3, 5, 8, 9
    clean = torch.tensor([0, 1, 2, 3, 12, 13, 14, 15])
    identity, divergences = 0.0, []
    for place, row in enumerate(clean.tolist()):
        p = logits[[row, row + 4, row + 8]].double().softmax(dim=1)
        mean = p.mean(dim=0)
        divergences.append(float((p * (p / mean).log()).sum() / 3))
        identity -= float(logits[row].double().log_softmax(dim=0)[classes[place]]) / 8
    chosen = method.settings
    triplet = weighted_regularised_triplet(features[clean], classes, chosen.include_self, chosen.legacy_weights)
    return identity + float(triplet) + 12 * sum(divergences) / 8, divergences


@pytest.mark.parametrize("config", [CIL.Config(), CIL.paper()])
def test_cil_step_picture_by_picture(config: CIL.Config) -> None:
    method = build(CIL, config).train()
    torch.nn.init.normal_(method.classifier.weight, std=0.5, generator=generator_from("wide"))
    expected, divergences = cil_by_hand(method)
    assert loss(method) == pytest.approx(expected, rel=1e-4)
    assert min(divergences[:4]) > 1e-4
    if config.infrared_views == "constant":  # so the published weight of 12 is 6 for visible images
        assert divergences[4:] == pytest.approx([0.0] * 4, abs=1e-6)
    else:
        assert min(divergences[4:]) > 1e-4


def test_published_cil_erases_its_clean_view_and_ours_does_not() -> None:
    images = some_batch().images.repeat(8, 1, 1, 1)
    generator = streams(len(images))
    plain = build(CIL).visible_triple(images, generator)
    literal = build(CIL, erase_clean=True).visible_triple(images, generator)
    erased = (plain[0] - literal[0]).abs().flatten(1).amax(dim=1) > 0.02  # to whole grey levels changes less
    assert 0.6 < float(erased.float().mean()) < 0.9  # 1 - (1 - 0.5)², three quarters
    assert torch.equal(plain[1:], literal[1:])
    geometry = build(AGW)._view(
        Batch(images, *(torch.zeros(len(images), dtype=torch.int64),) * 4), streams(len(images))
    )
    torch.testing.assert_close(plain[0], geometry)


def test_wrapping_changes_only_pictures_that_left_their_range() -> None:
    images = some_batch().images.repeat(8, 1, 1, 1)
    generator = streams(len(images))
    clipped = build(CIL, erase_clean=True).visible_triple(images, generator)[0]
    wrapped = build(CIL, erase_clean=True, legacy_wrap=True).visible_triple(images, generator)[0]
    levels = pictures(clipped) * 255
    changed = (clipped - wrapped).abs() > 1e-3
    assert changed.any()
    assert ((levels[changed] < 0.5) | (levels[changed] > 254.5)).all()


def test_infrared_copies() -> None:
    batch = some_batch()
    cold = batch.images[batch.modalities == Modality.INFRARED]
    constant = build(CIL, infrared_views="constant").infrared_triple(cold, streams(4))
    assert torch.equal(constant[0], constant[1])
    assert torch.equal(constant[0], constant[2])
    augmented = build(CIL).infrared_triple(cold, streams(4))
    assert torch.equal(augmented[0], constant[0])
    assert (augmented[1] - augmented[2]).abs().mean() > 0.01
    assert is_grey(pictures(augmented.flatten(0, 1))).all()


def test_cil_views_do_not_depend_on_the_batch() -> None:
    images, generator = some_batch().images, streams()
    together = build(CIL).visible_triple(images, generator)
    alone = build(CIL).visible_triple(images[3:4], generator.rows(torch.tensor([3])))
    torch.testing.assert_close(together[:, 3:4], alone, atol=1e-4, rtol=0)


def test_cil_refuses_what_it_does_not_have() -> None:
    with pytest.raises(UsageError, match="erasing"):
        CIL.Config(views=PaddedViewConfig(erasing=0.5))


# CAJ


def seen_by(method: CAJ) -> tuple[Tensor, Tensor]:
    """What the two stems of CAJ get in a step."""
    seen: list[tuple[Tensor, Tensor]] = []
    embed = method._embed
    method._embed = lambda visible, infrared: (seen.append((visible, infrared)), embed(visible, infrared))[1]  # type: ignore
    method.train()(some_batch(), streams())
    return seen[0]


def test_caj_sees_two_visible_views_of_which_one_has_a_single_channel() -> None:
    quiet = PaddedViewConfig(height=HEIGHT, width=WIDTH, padding=2)
    visible, infrared = seen_by(build(CAJ, views=quiet))
    assert visible.shape == (8, 3, HEIGHT, WIDTH)
    assert infrared.shape == (4, 3, HEIGHT, WIDTH)
    assert not is_grey(pictures(visible[:4])).any()
    assert is_grey(pictures(visible[4:])).all()
    assert is_grey(pictures(infrared)).all()

    visible, infrared = seen_by(build(CAJ, views=quiet, change_normalised=True))
    assert is_grey(visible[4:]).all()  # one channel after normalising: no grey image ...
    assert not is_grey(pictures(visible[4:])).any()
    assert not is_grey(pictures(infrared)).all()  # ... and infrared ones lose their greyness too


def test_caj_erases_with_its_colour() -> None:
    colour = CAJ.paper().views.erasing_value
    method = build(CAJ, views=PaddedViewConfig(HEIGHT, WIDTH, 2, erasing=1.0, erasing_value=colour))
    plain = seen_by(method)[0][:4]
    hole = (plain - torch.tensor(colour).view(3, 1, 1)).abs().amax(dim=1) < 1e-6
    assert (hole.flatten(1).sum(dim=1) > 0.01 * HEIGHT * WIDTH).all()


def test_caj_loss_is_identity_and_enhanced_triplet_of_all_three_views() -> None:
    method = build(CAJ).train()
    visible, infrared = seen_by(method)
    features, logits = method._embed(visible, infrared)
    classes = torch.tensor([1, 1, 3, 3] * 3)
    expected = torch.nn.functional.cross_entropy(logits, classes) + enhanced_triplet(features, classes)
    assert loss(method) == pytest.approx(float(expected), rel=1e-5)
    capped = build(CAJ, saturate=True)
    torch.nn.init.constant_(capped.neck.weight, 1.0)
    with torch.no_grad():
        for parameter in capped.backbone.layer4.parameters():
            parameter.mul_(30)
    assert float(capped.train()(some_batch(), streams()).logs["triplet"]) <= 88.0


def test_flip_test_makes_a_picture_and_its_mirror_image_one() -> None:
    images = torch.randn(3, 3, HEIGHT, WIDTH, generator=generator_from("images"))
    for modality in Modality:
        features = build(CAJ).eval().encode(images, modality)
        mirrored = build(CAJ).eval().encode(images.flip(-1), modality)
        single = build(CAJ, flip_test=False).eval().encode(images, modality)
        for name, values in features.items():
            torch.testing.assert_close(values, mirrored[name])
            assert (values - single[name]).abs().max() > 1e-4


# PMWGCN (reconstruction)


def test_pmwgcn_begins_as_agw() -> None:
    images = torch.randn(3, 3, HEIGHT, WIDTH, generator=generator_from("images"))
    agw, ours = build(AGW).eval(), build(PMWGCN).eval()
    for modality in Modality:
        torch.testing.assert_close(ours.encode(images, modality), agw.encode(images, modality), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    "changes",
    [
        {"mask": 0.0},
        {"block": WaveletGraph.Config(wavelet=False)},
        {"block": WaveletGraph.Config(graph=False)},
        {"mask_shapes": ("rectangle",)},
    ],
)
def test_mask_wavelet_and_graph_each_change_the_step(changes: dict[str, Any]) -> None:
    whole, less = build(PMWGCN, mask=1.0), build(PMWGCN, **{"mask": 1.0, **changes})
    for method in (whole, less):
        torch.nn.init.ones_(method.block.norm.weight)  # open: it starts closed
    assert loss(whole) != pytest.approx(loss(less), rel=1e-5)
