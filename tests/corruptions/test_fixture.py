"""The corruptions without randomness against mean and deviation of the reference's output on a made-up picture."""

import pytest
import torch

from dapg.core.rng import SampleGenerator
from dapg.corruptions import library
from dapg.corruptions.digital import jpeg_by_dct

# (mean, deviation) at severities 1 to 5 of imagecorruptions on the picture below, uint8 (truncated) and float x 255.
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
def test_bytes(name, severity):
    assert moments(name, fixture(), severity) == pytest.approx(TRUNCATED[name][severity - 1], abs=0.05)


@pytest.mark.parametrize("severity", library.SEVERITIES)
@pytest.mark.parametrize("name", FLOAT)
def test_float(name, severity):
    assert moments(name, fixture().float() / 255, severity) == pytest.approx(FLOAT[name][severity - 1], abs=0.05)


@pytest.mark.parametrize("severity", library.SEVERITIES)
def test_jpeg_by_dct_is_near_the_codec(severity):
    images = fixture()
    codec = library.corrupt(images, "jpeg_compression", severity, SampleGenerator(torch.tensor([0])))
    quality = library.get("jpeg_compression").QUALITY[severity - 1]
    transformed = jpeg_by_dct(images.float() / 255, quality) * 255
    assert (transformed - codec).abs().mean() <= 2.0
