"""The corruptions without randomness against mean and deviation of the reference's output on a made-up image."""

import os
from pathlib import Path

import pytest
import torch

from dapg import corruptions
from dapg.core.images import decode
from dapg.core.rng import SampleGenerator
from dapg.corruptions import library
from dapg.corruptions.digital import JpegCompression, Pixelate, jpeg_by_dct
from dapg.data.sets.synthetic import Synthetic

FROST = Path(corruptions.__file__).parents[1] / "assets" / "frost"

# (mean, deviation) at severities 1 to 5 of imagecorruptions on the image below, uint8 (truncated) and float x 255.
TRUNCATED = {
    "gaussian_blur": [(127.145, 59.633), (127.002, 45.8), (126.997, 32.754), (126.993, 21.341), (126.982, 7.45)],
    "defocus_blur": [(126.682, 51.677), (126.812, 44.478), (126.93, 30.383), (128.656, 17.541), (128.372, 7.28)],
    "zoom_blur": [(127.019, 54.126), (126.998, 50.416), (127.009, 46.156), (127.027, 43.884), (127.026, 40.667)],
    "brightness": [(142.928, 77.296), (155.072, 77.65), (164.87, 77.456), (172.68, 77.184), (178.297, 76.949)],
    "contrast": [(127.0, 29.564), (127.0, 22.169), (127.034, 14.78), (127.0, 7.399), (127.0, 3.695)],
    "saturate": [(160.867, 58.509), (170.719, 59.873), (106.682, 80.217), (87.72, 85.613), (87.72, 85.613)],
    "pixelate": [(128.309, 67.911), (128.5, 66.781), (127.884, 63.835), (127.921, 60.042), (128.5, 57.554)],
    "jpeg_compression": [(127.452, 64.322), (127.971, 62.777), (126.907, 61.794), (127.434, 60.756), (127.626, 64.962)],
}
FLOAT = {
    "gaussian_blur": [(127.5, 59.765), (127.499, 45.858), (127.497, 32.757), (127.493, 21.325), (127.482, 7.429)],
    "defocus_blur": [(127.502, 51.676), (127.502, 44.525), (127.503, 30.396), (129.158, 17.535), (128.88, 7.275)],
    "zoom_blur": [(127.519, 54.126), (127.498, 50.416), (127.51, 46.155), (127.526, 43.882), (127.527, 40.666)],
    "brightness": [(143.377, 77.223), (155.426, 77.544), (165.279, 77.361), (173.007, 77.052), (178.678, 76.83)],
    "contrast": [(127.5, 29.56), (127.5, 22.17), (127.5, 14.78), (127.5, 7.39), (127.5, 3.695)],
    "saturate": [(161.201, 58.467), (170.83, 59.877), (106.826, 80.18), (87.822, 85.622), (87.822, 85.622)],
}


def fixture() -> torch.Tensor:
    row = torch.arange(256)[:, None]
    column = torch.arange(128)
    return torch.stack([(7 * row + 13 * column + 29 * c) % 256 for c in range(3)]).to(torch.uint8)[None]


def moments(name: str, images: torch.Tensor, severity: int) -> tuple[float, float]:
    result = library.corrupt(images, name, severity, SampleGenerator(torch.tensor([0]))).double()
    if images.dtype != torch.uint8:
        result *= 255
    return float(result.mean()), float(result.std(correction=0))


@pytest.mark.parametrize("severity", library.SEVERITIES)
@pytest.mark.parametrize("name", TRUNCATED)
def test_bytes(name: str, severity: int) -> None:
    assert moments(name, fixture(), severity) == pytest.approx(TRUNCATED[name][severity - 1], abs=0.05)


@pytest.mark.parametrize("severity", library.SEVERITIES)
@pytest.mark.parametrize("name", FLOAT)
def test_float(name: str, severity: int) -> None:
    assert moments(name, fixture().float() / 255, severity) == pytest.approx(FLOAT[name][severity - 1], abs=0.05)


def jpeg_compression() -> JpegCompression:
    corruption = library.get("jpeg_compression")
    assert isinstance(corruption, JpegCompression)
    return corruption


@pytest.mark.parametrize("severity", library.SEVERITIES)
def test_jpeg_by_dct_is_near_the_codec(severity: int) -> None:
    images = fixture()
    codec = library.corrupt(images, "jpeg_compression", severity, SampleGenerator(torch.tensor([0])))
    quality = jpeg_compression().QUALITY[severity - 1]
    transformed = jpeg_by_dct(images.float() / 255, quality) * 255
    assert (transformed - codec).abs().mean() <= 2.0


def photographs() -> list[torch.Tensor]:
    """Images that ship with the package, 256 x 128: photographs of frost and rendered people."""
    frost = [path.read_bytes() for path in sorted(FROST.glob("frost*.*g"))]
    people = Synthetic()
    return [
        *(decode(data, (256, 128)) for data in frost),
        *(decode(people.read(record), (256, 128)) for record in people.records("test")[::100]),
    ]


def assert_transform_equals_codec(pictures: torch.Tensor, severity: int) -> None:
    jpeg = jpeg_compression()
    codec = jpeg.apply(pictures, {"severity": torch.full((len(pictures),), severity)})
    transformed = jpeg_by_dct(pictures / 255, jpeg.QUALITY[severity - 1]) * 255
    assert (transformed - codec).abs().mean(dim=(1, 2, 3)).max() <= 1.0


@pytest.mark.parametrize("severity", library.SEVERITIES)
def test_jpeg_by_dct_is_within_a_level_of_the_codec_on_photographs(severity: int) -> None:
    assert_transform_equals_codec(torch.stack(photographs()), severity)


@pytest.mark.parametrize("severity", library.SEVERITIES)
def test_jpeg_by_dct_on_photographs_of_your_own(severity: int) -> None:
    """DAPG_PHOTOGRAPHS names a folder of them."""
    folder = os.environ.get("DAPG_PHOTOGRAPHS", "")
    paths = [path for path in sorted(Path(folder).glob("*")) if path.suffix in (".jpg", ".png")] if folder else []
    if not paths:
        pytest.skip("DAPG_PHOTOGRAPHS names no folder of images")
    assert_transform_equals_codec(torch.stack([decode(path.read_bytes(), (256, 128)) for path in paths]), severity)


@pytest.mark.parametrize("size", [(256, 128), (288, 144), (64, 32), (33, 45), (97, 61)])
def test_pixelate_in_torch_equals_pillow(size: tuple[int, int]) -> None:
    """The GPU's way and the CPU's way to the same image; the second is Pillow, as in the reference."""
    pictures = torch.randint(0, 256, (5, 3, *size), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    pixelate = library.get("pixelate")
    assert isinstance(pixelate, Pixelate)
    severity = torch.arange(1, 6)
    by_pillow = pixelate.apply(pictures, {"severity": severity})
    in_torch = pixelate._pixelate(pictures.float(), severity, whole_levels=True)
    difference = (in_torch - by_pillow).abs()
    if size[0] == 2 * size[1]:
        assert difference.max() == 0
    else:
        # Recent versions of Pillow shrink the rows of some shapes first, and round in between; and an output pixel
        # whose centre lies exactly between two repeated ones takes one or the other.
        assert (difference > 1).float().mean() <= 0.06
