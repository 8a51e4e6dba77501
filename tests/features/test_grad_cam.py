"""Activation maps against gradients by hand, on a network small enough to write down."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import nn

from dapg.core.types import Modality, Record
from dapg.evaluation.explain import ImageFiles
from dapg.features.encoders import BackboneEncoder, FlipAveraged, HistogramEncoder
from dapg.features.grad_cam import backbone_of, likeness_maps, maps_of_records, strength_maps
from dapg.models.backbones.base import Pyramid


class Blocks(Pyramid):
    """Two 4 x 4 poolings; the feature map is the colours of the parts of the image."""

    def __init__(self, config: Pyramid.Config | None = None, generator: torch.Generator | None = None) -> None:
        super().__init__(config or self.Config())
        self.feature_dim = 3
        self.mean, self.std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
        self.one, self.two = nn.AvgPool2d(4), nn.AvgPool2d(2)

    def stem_names(self) -> tuple[str, ...]:
        return ()

    def apply_stem(self, modules: Sequence[nn.Module], images: torch.Tensor) -> torch.Tensor:
        return images

    def stages(self) -> dict[str, list[nn.Module]]:
        return {"layer1": [self.one], "layer2": [self.two]}

    def stage_dims(self) -> dict[str, int]:
        return {"layer1": 3, "layer2": 3}


@pytest.fixture
def encoder() -> BackboneEncoder:
    return BackboneEncoder(Blocks(), (16, 16), torch.device("cpu"))


def half_red_half_green() -> torch.Tensor:
    """Top half red, bottom half green (darker)."""
    image = torch.zeros(1, 3, 16, 16, dtype=torch.uint8)
    image[:, 0, :8] = 200
    image[:, 1, 8:] = 100
    return image


def test_likeness_shows_the_half_that_both_have(encoder: BackboneEncoder) -> None:
    red, green = torch.tensor([[1.0, 0, 0]]), torch.tensor([[0, 1.0, 0]])
    top = likeness_maps(encoder, half_red_half_green(), Modality.VISIBLE, "backbone", red)
    bottom = likeness_maps(encoder, half_red_half_green(), Modality.VISIBLE, "backbone", green)
    assert top[0].tolist() == [[1, 1], [0, 0]]
    assert bottom[0].tolist() == [[0, 0], [1, 1]]


def test_likeness_is_grad_cam_of_the_cosine(encoder: BackboneEncoder) -> None:
    """weights: gradient of f·g / |f| by the map, averaged over places; map: ReLU of the weighted channels."""
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (1, 3, 16, 16), generator=generator, dtype=torch.uint8)
    other = torch.nn.functional.normalize(torch.randn(1, 3, generator=generator), dim=1)
    found = likeness_maps(encoder, image, Modality.VISIBLE, "backbone", other)[0]
    cells = (image / 255).reshape(3, 2, 8, 2, 8).mean(dim=(2, 4)).double()
    pooled = cells.mean(dim=(1, 2))
    unit = pooled / pooled.norm()
    gradient = (other[0].double() - (unit @ other[0].double()) * unit) / pooled.norm() / 4
    expected = (gradient[:, None, None] * cells).sum(dim=0).clamp(min=0)
    assert torch.allclose(found, (expected / expected.max()).float(), atol=1e-5)


def test_strength_is_the_squared_length(encoder: BackboneEncoder) -> None:
    found = strength_maps(encoder, half_red_half_green(), Modality.VISIBLE)[0]
    assert found[0].tolist() == [1, 1]
    assert found[1].tolist() == pytest.approx([0.25, 0.25], abs=1e-6)


def test_maps_follow_the_records_and_the_first_run_of_a_flip(encoder: BackboneEncoder, tmp_path: Path) -> None:
    from dapg.core.images import to_pil

    paths = []
    for number, image in enumerate((half_red_half_green()[0], half_red_half_green()[0].flip(1))):
        paths.append(str(tmp_path / f"{number}.png"))
        to_pil(image).save(paths[-1])
    dataset = ImageFiles(tuple(paths), Modality.INFRARED)
    records = dataset.records()
    assert records[0] == Record("0.png", modality=Modality.INFRARED)
    assert dataset.root == tmp_path.resolve()
    red = torch.tensor([1.0, 0, 0])
    for chosen in (encoder, FlipAveraged(encoder)):
        maps = maps_of_records(chosen, dataset, [*records, records[0]], "backbone", [red, red, None], batch_size=2)
        assert [one.argmax(dim=0)[0].item() for one in maps] == [0, 1, 0]
        assert maps[2][1, 0] == pytest.approx(0.25, abs=1e-3)
    assert backbone_of(FlipAveraged(encoder)) is encoder.backbone
    assert backbone_of(HistogramEncoder((16, 16), torch.device("cpu"))) is None
