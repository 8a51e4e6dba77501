"""Basic views against plain loops and hand-made cases."""

import numpy as np
import pytest
import torch
from PIL import Image

from dapg.augment import basic
from dapg.core.errors import UsageError
from dapg.core.rng import SampleGenerator


def pictures(count: int = 6, height: int = 40, width: int = 24) -> torch.Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(5))


def streams(count: int = 6, start: int = 0) -> SampleGenerator:
    return SampleGenerator(torch.arange(start, start + count))


VIEWS = {
    "crop": lambda images, g: basic.random_resized_crop(images, (20, 16), g),
    "padded_crop": lambda images, g: basic.random_padded_crop(images, g, padding=4),
    "flip": lambda images, g: basic.horizontal_flip(images, g, 0.5),
    "grey": lambda images, g: basic.to_grey(images, g, 0.5),
    "jitter": lambda images, g: basic.colour_jitter(images, g, 0.4, 0.4, 0.4, 0.1, 0.8),
    "blur": lambda images, g: basic.gaussian_blur(images, g, (0.1, 2.0), 0.5),
    "erasing": lambda images, g: basic.random_erasing(images, g, 0.5),
}


@pytest.mark.parametrize("name", VIEWS)
def test_a_sample_does_not_depend_on_its_batch_and_the_input_stays(name: str) -> None:
    images = pictures(16)
    before = images.clone()
    together = VIEWS[name](images, streams(16))
    alone = torch.cat([VIEWS[name](images[i : i + 1], streams(1, i)) for i in range(16)])
    assert torch.equal(images, before)
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=0)
    assert together.min() >= 0
    assert together.max() <= 1
    other = VIEWS[name](images, streams(16, 100))
    assert not torch.equal(together, other)


def test_crop_resize_equals_crop_then_resize() -> None:
    images = pictures(3, 30, 20)
    boxes = torch.tensor([[0, 0, 30, 20], [5, 3, 12, 9], [29, 19, 1, 1]])
    result = basic.crop_resize(images, boxes, (17, 11))
    for i, (top, left, height, width) in enumerate(boxes.tolist()):
        cut = images[i : i + 1, :, top : top + height, left : left + width]
        expected = torch.nn.functional.interpolate(cut, size=(17, 11), mode="bilinear", align_corners=False)
        torch.testing.assert_close(result[i : i + 1], expected, atol=2e-5, rtol=0)


def test_crop_boxes_have_the_asked_area_and_ratio_and_fill_the_picture() -> None:
    boxes = basic.draw_crop_boxes(256, 128, streams(4000), (0.2, 1.0), (3 / 4, 4 / 3)).double()
    top, left, height, width = boxes.unbind(1)
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + height <= 256).all()
    assert (left + width <= 128).all()
    share = height * width / (256 * 128)
    ratio = width / height
    assert 0.195 < share.min() < 0.205
    assert ratio.min() >= 0.74
    assert ratio.max() <= 1.35
    # 128 wide at ratio 3/4 is 171 high: two thirds of the image is the most a crop can hold.
    assert 0.6 < share.max() < 0.67
    assert (top + height == 256).any()
    assert (left == 0).any()


def test_impossible_crop_falls_back_to_the_centre() -> None:
    boxes = basic.draw_crop_boxes(400, 20, streams(8), (0.9, 1.0), (1.0, 1.0))
    assert (boxes == torch.tensor([190, 0, 20, 20])).all()


def test_uint8_and_float_crops_agree() -> None:
    images = (pictures() * 255).round().to(torch.uint8)
    of_bytes = basic.random_resized_crop(images, (16, 8), streams())
    of_floats = basic.random_resized_crop(images.float() / 255, (16, 8), streams())
    assert torch.equal(of_bytes, of_floats)


def test_padded_crop_moves_by_whole_pixels() -> None:
    images = pictures(30, 9, 7) + 0.5
    moved = basic.random_padded_crop(images, streams(30), padding=3)
    padded = torch.nn.functional.pad(images, (3, 3, 3, 3))
    offsets = streams(30).integers(7, 2)
    for i, (top, left) in enumerate(offsets.tolist()):
        assert torch.equal(moved[i], padded[i, :, top : top + 9, left : left + 7])


def test_flip_and_grey_with_certainty() -> None:
    images = pictures()
    assert torch.equal(basic.horizontal_flip(images, streams(), 1.0), images.flip(-1))
    assert torch.equal(basic.horizontal_flip(images, streams(), 0.0), images)
    result = basic.to_grey(images, streams(), 1.0)
    expected = 0.299 * images[:, 0] + 0.587 * images[:, 1] + 0.114 * images[:, 2]
    for channel in range(3):
        torch.testing.assert_close(result[:, channel], expected)


def test_jitter_operations_by_hand() -> None:
    pixel = torch.tensor([0.8, 0.4, 0.2]).view(1, 3, 1, 1)
    luma = 0.299 * 0.8 + 0.587 * 0.4 + 0.114 * 0.2
    two = torch.tensor([2.0])
    half = torch.tensor([0.5])
    assert basic.change_brightness(pixel, two).flatten().tolist() == pytest.approx([1.0, 0.8, 0.4])
    expected = [luma + 0.5 * (value - luma) for value in (0.8, 0.4, 0.2)]
    assert basic.change_contrast(pixel, half).flatten().tolist() == pytest.approx(expected)
    assert basic.change_saturation(pixel, half).flatten().tolist() == pytest.approx(expected)
    third = torch.tensor([1 / 3])
    assert basic.change_hue(pixel, third).flatten().tolist() == pytest.approx([0.2, 0.8, 0.4], abs=1e-6)


def test_hue_agrees_with_colorsys() -> None:
    import colorsys

    images = pictures(1, 8, 8)
    result = basic.change_hue(images, torch.tensor([0.17]))[0].flatten(1).T
    for old, new in zip(images[0].flatten(1).T.tolist(), result.tolist(), strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*old)
        assert new == pytest.approx(colorsys.hsv_to_rgb((hue + 0.17) % 1, saturation, value), abs=1e-5)


def test_jitter_without_strength_changes_nothing_and_refuses_half_turns() -> None:
    images = pictures(64)
    assert torch.equal(basic.colour_jitter(images, streams(64), 0.0, 0.0, 0.0, 0.0, 1.0), images)
    with pytest.raises(UsageError, match="hue"):
        basic.colour_jitter(images, streams(64), 0.4, 0.4, 0.4, 0.7)


def test_blur_equals_scipy() -> None:
    from scipy.ndimage import gaussian_filter1d

    images = pictures(4)
    result = basic.gaussian_blur(images, streams(4), (1.5, 1.5000001), 1.0).numpy()
    expected = gaussian_filter1d(images.double().numpy(), 1.5, axis=-1, mode="nearest", truncate=4)
    expected = gaussian_filter1d(expected, 1.5, axis=-2, mode="nearest", truncate=4)
    np.testing.assert_allclose(result, expected, atol=1e-4)


def test_erasing_fills_one_rectangle_with_the_value() -> None:
    images = pictures(50) * 0.5 + 0.25
    erased = basic.random_erasing(images, streams(50), 1.0, (0.02, 0.4), (0.3, 3.33), (0.0, 1.0, 0.0))
    for old, new in zip(images, erased, strict=True):
        changed = (old != new).all(dim=0)
        rows, columns = changed.any(dim=1).nonzero()[:, 0], changed.any(dim=0).nonzero()[:, 0]
        tall, wide = int(rows.max() - rows.min() + 1), int(columns.max() - columns.min() + 1)
        assert int(changed.sum()) == tall * wide
        assert 0.01 < tall * wide / (40 * 24) < 0.42
        assert (new[:, changed] == torch.tensor([0.0, 1.0, 0.0])[:, None]).all()


def test_resize_matches_pillow_within_rounding() -> None:
    rng = np.random.default_rng(0)
    array = rng.integers(0, 256, (64, 32, 3), dtype=np.uint8)
    ours = basic.resize(torch.from_numpy(array).permute(2, 0, 1)[None], (24, 12))
    theirs = np.asarray(Image.fromarray(array).resize((12, 24), Image.Resampling.BILINEAR))
    assert np.abs(ours[0].permute(1, 2, 0).numpy() * 255 - theirs).max() < 1.01
