"""One decoder: what comes out of every kind of file, and what is refused with the file's name."""

import io
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dapg.core.errors import DataError
from dapg.core.images import decode, from_numpy, normalise, open_rgb, to_float, to_pil


def smooth(height: int, width: int) -> np.ndarray[Any, Any]:
    """An image of slow waves, (height, width, 3) uint8."""
    y, x = np.mgrid[0:height, 0:width]
    waves = [np.sin(x / width * 5 + phase) * np.cos(y / height * 4 + phase) for phase in (0, 1, 2)]
    return (127.5 + 120 * np.stack(waves, axis=-1)).astype(np.uint8)


def encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def pixels(image: torch.Tensor) -> np.ndarray[Any, Any]:
    return image.permute(1, 2, 0).numpy()


PICTURE = Image.fromarray(smooth(64, 32))


@pytest.mark.parametrize(("form", "options"), [("PNG", {}), ("BMP", {}), ("TIFF", {}), ("WEBP", {"lossless": True})])
def test_lossless_files_come_back_exactly(form: str, options: dict[str, Any]) -> None:
    image = decode(encoded(PICTURE, form, **options), (64, 32))
    assert image.shape == (3, 64, 32)
    assert image.dtype == torch.uint8
    assert image.is_contiguous()
    assert np.array_equal(pixels(image), np.asarray(PICTURE))
    assert to_pil(image).tobytes() == PICTURE.tobytes()


def test_size_is_height_then_width_and_shrinking_does_not_alias() -> None:
    """Columns alternate black and white; a quarter of the width averages to grey, plain sampling would not."""
    stripes = np.zeros((40, 80, 3), np.uint8)
    stripes[:, ::2] = 255
    image = decode(encoded(Image.fromarray(stripes), "PNG"), (10, 20))
    assert image.shape == (3, 10, 20)
    assert int(image.min()) > 100
    assert int(image.max()) < 156


def test_jpeg_at_reduced_scale_differs_by_a_grey_level_at_most_two() -> None:
    large = Image.fromarray(smooth(800, 400))
    data = encoded(large, "JPEG", quality=95)
    whole = np.asarray(open_rgb(data, "x").resize((64, 128), Image.Resampling.BILINEAR)).astype(int)
    drafted = pixels(decode(data, (128, 64))).astype(int)
    assert np.abs(drafted - whole).mean() < 0.6
    assert np.abs(drafted - whole).max() <= 2
    assert decode(data, (128, 64)).shape == (3, 128, 64)


def test_jpeg_under_twice_the_target_is_decoded_whole() -> None:
    data = encoded(Image.fromarray(smooth(256, 128)), "JPEG")
    whole = open_rgb(data, "x").resize((64, 128), Image.Resampling.BILINEAR)
    assert np.array_equal(pixels(decode(data, (128, 64))), np.asarray(whole))


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_box_is_cut_from_the_stored_picture(form: str) -> None:
    """A large JPEG with a box must not be decoded at reduced scale, where the box would mean another place."""
    large = Image.fromarray(smooth(800, 400))
    data = encoded(large, form, **({"quality": 95} if form == "JPEG" else {}))
    whole = open_rgb(data, "x")
    expected = np.asarray(whole.crop((100, 200, 164, 328)))
    assert np.array_equal(pixels(decode(data, (128, 64), box=(100, 200, 164, 328))), expected)
    edge = np.asarray(whole.crop((390, 0, 400, 10)))
    assert np.array_equal(pixels(decode(data, (10, 10), box=(390, -5, 500, 10))), edge), "clipped at the border"


@pytest.mark.parametrize("box", [(40, 0, 50, 10), (0, 70, 10, 80), (5, 5, 5, 9), (9, 5, 5, 9)])
def test_a_box_without_area_is_named(box: tuple[int, int, int, int]) -> None:
    with pytest.raises(DataError, match=r"cam1/a\.png: box .* has no area inside an image of 32 x 64"):
        decode(encoded(PICTURE, "PNG"), (64, 32), box=box, where="cam1/a.png")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty"),
        (b"this is text, not a picture\n" * 20, "not an image"),
        (encoded(PICTURE, "JPEG")[:-200], "damaged image"),
        (encoded(PICTURE, "PNG")[:-900], "damaged image"),
        (encoded(PICTURE, "JPEG")[:30], "not an image|damaged"),
        (encoded(Image.fromarray(smooth(8, 8).astype(np.float32)[..., 0]), "TIFF"), "floating-point"),
    ],
)
def test_unreadable_files_are_named(data: bytes, message: str) -> None:
    for read in (lambda: decode(data, (64, 32), where="cam1/a.jpg"), lambda: open_rgb(data, "cam1/a.jpg")):
        with pytest.raises(DataError, match=rf"cam1/a\.jpg: .*({message})"):
            read()


def test_random_damage_is_a_data_error_or_a_picture_never_another_error() -> None:
    """A third of a training set's strange files in small: cut, header bytes changed, any bytes changed."""
    draw = np.random.default_rng(0)
    files = [encoded(PICTURE, form) for form in ("JPEG", "PNG", "BMP", "GIF", "WEBP")]
    refused = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number in range(300):
            data = bytearray(files[number % len(files)])
            reach = (60, len(data))[number % 2]
            for place in draw.integers(0, reach, 4):
                data[place] = draw.integers(256)
            if number % 3 == 0:
                del data[int(draw.integers(1, len(data))) :]
            try:
                assert decode(bytes(data), (16, 8)).shape == (3, 16, 8)
            except DataError:
                refused += 1
    assert refused > 50


def test_grey_palette_and_alpha_become_rgb() -> None:
    grey = PICTURE.convert("L")
    three = np.repeat(np.asarray(grey)[..., None], 3, axis=2)
    for form in ("PNG", "TIFF"):
        assert np.array_equal(pixels(decode(encoded(grey, form), (64, 32))), three)
    palette = PICTURE.quantize(256)
    assert np.array_equal(pixels(decode(encoded(palette, "PNG"), (64, 32))), np.asarray(palette.convert("RGB")))
    alpha = PICTURE.copy()
    alpha.putalpha(128)
    assert np.array_equal(pixels(decode(encoded(alpha, "PNG"), (64, 32))), np.asarray(PICTURE))
    black_and_white = grey.point(lambda value: 255 * (value > 128)).convert("1")
    assert set(np.unique(pixels(decode(encoded(black_and_white, "PNG"), (64, 32))))) == {0, 255}


def test_transparent_palette_raises_no_warning() -> None:
    palette = PICTURE.quantize(16)
    data = encoded(palette, "PNG", transparency=bytes(range(0, 160, 10)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image = decode(data, (64, 32))
    assert np.array_equal(pixels(image), np.asarray(palette.convert("RGB")))


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_16_bit_infrared_keeps_its_upper_byte(form: str) -> None:
    """Pillow alone would turn everything above 255 of 65535 into white."""
    values = (np.arange(64 * 32, dtype=np.uint16) * 31).reshape(64, 32)
    image = pixels(decode(encoded(Image.fromarray(values), form), (64, 32)))
    assert np.array_equal(image, np.repeat((values >> 8).astype(np.uint8)[..., None], 3, axis=2))


def test_cmyk_jpeg_has_the_colours_of_the_rgb_one() -> None:
    cmyk = encoded(PICTURE.convert("CMYK"), "JPEG", quality=95)
    difference = pixels(decode(cmyk, (64, 32))).astype(int) - np.asarray(PICTURE)
    assert np.abs(difference).mean() < 3
    large = Image.fromarray(smooth(800, 400)).convert("CMYK")
    drafted = pixels(decode(encoded(large, "JPEG", quality=95), (64, 32))).astype(int)
    assert np.abs(drafted - np.asarray(Image.fromarray(smooth(800, 400)).resize((32, 64), 2))).mean() < 3


def test_grey_jpeg_at_reduced_scale() -> None:
    large = Image.fromarray(smooth(800, 400)[..., 0])
    image = pixels(decode(encoded(large, "JPEG", quality=95), (128, 64))).astype(int)
    assert np.array_equal(image[..., 0], image[..., 2])
    assert np.abs(image[..., 0] - np.asarray(large.resize((64, 128), Image.Resampling.BILINEAR))).max() <= 2


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("scale", [1, 8])
def test_a_jpeg_is_set_upright_by_its_exif_note(orientation: int, scale: int) -> None:
    """Pillow's own exif_transpose is the independent reference; at scale 8 the reduced decoding takes part."""
    from PIL import ImageOps

    stored = Image.fromarray(smooth(64 * scale, 40 * scale))
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(stored, "JPEG", quality=95, exif=exif)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    expected = np.asarray(upright.resize((24, 40), Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(pixels(decode(data, (40, 24))).astype(int) - expected).max() <= 2
    assert np.array_equal(np.asarray(open_rgb(data, "x")), np.asarray(upright))


def test_a_box_is_cut_before_the_turn() -> None:
    stored = Image.fromarray(smooth(64, 40))
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(stored, "JPEG", quality=95, exif=exif)
    part = Image.open(io.BytesIO(data)).crop((0, 0, 20, 10)).transpose(Image.Transpose.ROTATE_270)
    assert np.array_equal(pixels(decode(data, (20, 10), box=(0, 0, 20, 10))), np.asarray(part))


def test_floats_and_normalising_by_hand() -> None:
    image = from_numpy(np.array([[[0, 255, 51]]], np.uint8))
    assert torch.allclose(to_float(image).flatten(), torch.tensor([0.0, 1.0, 0.2]))
    shifted = normalise(to_float(image), mean=(0.5, 0.5, 0.1), std=(0.5, 0.25, 0.1))
    assert torch.allclose(shifted.flatten(), torch.tensor([-1.0, 2.0, 1.0]))
    batch = to_float(image)[None].expand(2, 3, 1, 1)
    assert torch.allclose(normalise(batch)[1, 0], torch.tensor((0 - 0.485) / 0.229))
