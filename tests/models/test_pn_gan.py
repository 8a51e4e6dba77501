"""PN-GAN's networks: published sizes, shapes and key names; the attention generator's own promises."""

import math
from typing import Any

import pytest
import torch

from dapg.core.errors import UsageError
from dapg.core.rng import generator_from
from dapg.models.pn_gan import (
    AttentionGenerator,
    DiscriminatorConfig,
    GeneratorConfig,
    PatchDiscriminator,
    build_generator,
)

TINY = GeneratorConfig("attention", width=8, blocks=1)


def pictures(batch: int = 2, height: int = 32, width: int = 16, name: str = "p") -> torch.Tensor:
    return torch.rand(batch, 3, height, width, generator=generator_from(name)) * 2 - 1


def test_published_generator_has_its_layers_names_and_size() -> None:
    generator = build_generator(GeneratorConfig("residual", 64, 9))
    shapes = {name: tuple(tensor.shape) for name, tensor in generator.state_dict().items()}
    expected = {"conv1.conv.weight": (64, 6, 7, 7), "conv1.conv.bias": (64,)}
    expected |= {"conv2.conv.weight": (128, 64, 3, 3), "conv2.conv.bias": (128,)}
    expected |= {"conv3.conv.weight": (256, 128, 3, 3), "conv3.conv.bias": (256,)}
    for number in range(1, 10):
        for layer in ("conv1", "conv2"):
            expected[f"res{number}.{layer}.conv.weight"] = (256, 256, 3, 3)
            expected[f"res{number}.{layer}.conv.bias"] = (256,)
    expected |= {"deconv3.deconv.weight": (256, 128, 3, 3), "deconv3.deconv.bias": (128,)}
    expected |= {"deconv2.deconv.weight": (128, 64, 3, 3), "deconv2.deconv.bias": (64,)}
    expected |= {"deconv1.conv.weight": (3, 64, 7, 7)}  # no bias
    assert shapes == expected
    # by hand: 18,880 + 73,856 + 295,168 + 18 * 590,080 + 295,040 + 73,792 + 9,408
    assert sum(tensor.numel() for tensor in generator.state_dict().values()) == 11_387_584


def test_published_generator_is_the_recipe_written_with_plain_functions() -> None:
    from torch.nn import functional as f

    generator = build_generator(GeneratorConfig("residual", 4, 2)).eval()
    weights = generator.state_dict()
    for number, name in enumerate(sorted(weights)):  # biases start at 0: give them values that would show
        weights[name].copy_(0.3 * torch.randn(weights[name].shape, generator=generator_from("w", number)))
    image, pose = pictures(name="image"), pictures(name="pose")

    def conv(x: torch.Tensor, name: str, **options: int) -> torch.Tensor:
        return f.instance_norm(f.conv2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], **options))

    x = f.pad(torch.cat([image, pose], 1), (3, 3, 3, 3), "reflect")
    x = f.relu(conv(x, "conv1.conv"))
    x = f.relu(conv(x, "conv2.conv", stride=2, padding=1))
    x = f.relu(conv(x, "conv3.conv", stride=2, padding=1))
    for number in (1, 2):
        inner = f.relu(conv(x, f"res{number}.conv1.conv", padding=1))
        x = f.relu(x + conv(inner, f"res{number}.conv2.conv", padding=1))
    for name in ("deconv3.deconv", "deconv2.deconv"):
        x = f.conv_transpose2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], 2, 1, 1)
        x = f.relu(f.instance_norm(x))
    expected = f.conv2d(f.pad(x, (3, 3, 3, 3), "reflect"), weights["deconv1.conv.weight"]).tanh()
    torch.testing.assert_close(generator(image, pose), expected)


def test_published_discriminator() -> None:
    discriminator = PatchDiscriminator(DiscriminatorConfig())
    assert discriminator(pictures(1, 256, 128)).shape == (1, 1, 26, 10)
    shapes = {name: tuple(tensor.shape) for name, tensor in discriminator.state_dict().items()}
    assert shapes == {
        "conv1.conv.weight": (64, 3, 4, 4),
        "conv2.conv.weight": (128, 64, 4, 4),
        "conv2.conv.bias": (128,),
        "conv3.conv.weight": (256, 128, 4, 4),
        "conv3.conv.bias": (256,),
        "conv4.conv.weight": (512, 256, 4, 4),
        "conv4.conv.bias": (512,),
        "conv5.conv.weight": (1, 512, 4, 4),
    }


@pytest.mark.parametrize("config", [GeneratorConfig("residual", 8, 1), TINY])
def test_shapes_range_and_gradients(config: GeneratorConfig) -> None:
    generator = build_generator(config, generator_from("weights"))
    for height, width in ((32, 16), (64, 32)):
        out = generator(pictures(3, height, width), pictures(3, height, width, "pose"))
        assert out.shape == (3, 3, height, width)
        assert float(out.detach().abs().max()) <= 1
    out.square().mean().backward()
    assert all(weight.grad is not None and bool(weight.grad.isfinite().all()) for weight in generator.parameters())
    assert any(float(weight.grad.abs().max()) > 0 for weight in generator.parameters() if weight.grad is not None)


def test_equal_seeds_give_equal_weights_and_the_global_generator_is_left_alone() -> None:
    torch.manual_seed(0)
    untouched = torch.random.get_rng_state()
    spectral = DiscriminatorConfig(8, sees_pose=True, spectral=True)
    for build in (build_generator, lambda _, g: PatchDiscriminator(spectral, g)):
        first, second = build(TINY, generator_from("a")).state_dict(), build(TINY, generator_from("a")).state_dict()
        other = build(TINY, generator_from("b")).state_dict()
        assert all(torch.equal(first[name], second[name]) for name in first)
        assert any(not torch.equal(first[name], other[name]) for name in first)
    assert torch.equal(torch.random.get_rng_state(), untouched)


def test_discriminator_for_small_pictures_and_its_limit() -> None:
    config = DiscriminatorConfig(8, sees_pose=True, spectral=True, halvings=2)
    assert PatchDiscriminator(config)(pictures(2, 64, 32), pictures(2, 64, 32)).shape == (2, 1, 10, 2)
    config.check_size(64, 32)
    config.check_size(28, 28)
    assert PatchDiscriminator(config)(pictures(1, 28, 28), pictures(1, 28, 28)).shape == (1, 1, 1, 1)
    with pytest.raises(UsageError, match="halvings"):
        config.check_size(64, 27)
    with pytest.raises(UsageError, match="halvings"):
        DiscriminatorConfig().check_size(64, 32)


def test_spectral_norm_bounds_each_convolution() -> None:
    discriminator: Any = PatchDiscriminator(DiscriminatorConfig(8, spectral=True), generator_from("d"))
    for _ in range(60):
        discriminator(pictures(1, 64, 64))
    for layer in (discriminator.conv1, discriminator.conv3, discriminator.conv5):
        assert float(torch.linalg.matrix_norm(layer.conv.weight.detach().flatten(1), 2)) == pytest.approx(1.0, abs=0.02)


def test_attention_reaches_across_the_picture() -> None:
    """Changing one far corner of the source changes the other end of what is painted."""
    generator = build_generator(TINY, generator_from("weights"))
    image, pose = pictures(1, 128, 32), pictures(1, 128, 32, "pose")
    changed = image.clone()
    changed[:, :, :8] = -changed[:, :, :8]
    difference = (generator(changed, pose) - generator(image, pose)).detach().abs()
    assert float(difference[:, :, -8:].max()) > 0


def test_tiny_has_about_a_million_weights() -> None:
    generator = build_generator(GeneratorConfig("attention", 32, 2))
    assert sum(weight.numel() for weight in generator.parameters()) == 1_237_712


def test_an_attention_generator_has_an_even_width() -> None:
    with pytest.raises(UsageError, match="even"):
        build_generator(GeneratorConfig("attention", width=5))


CARRYING = GeneratorConfig("attention", width=8, blocks=1, carry=True)


def test_trusted_parts_are_kept_and_the_rest_is_painted() -> None:
    """Where nothing is carried the result is painted; where all is and trust is whole, it is what was carried."""
    generator = build_generator(CARRYING, generator_from("weights")).eval()
    assert isinstance(generator, AttentionGenerator)
    image, pose, parts = pictures(name="i"), pictures(name="s"), pictures(name="c")
    cover = torch.zeros(2, 1, 32, 16)
    cover[:, :, 8:24] = 1
    carried = torch.cat([parts * cover, cover], dim=1)
    painted, trust = generator.paint(image, pose, carried)
    assert 0.8 < float(trust.detach().mean()) < 0.95  # sigmoid(2) and a little noise
    made = generator(image, pose, carried)
    torch.testing.assert_close(made[:, :, :8], painted[:, :, :8])
    torch.testing.assert_close(made, painted * (1 - cover * trust) + parts * cover * trust)
    assert generator.finish.bias is not None
    with torch.no_grad():
        generator.finish.bias[-16:] = 50.0
    torch.testing.assert_close(generator(image, pose, carried)[:, :, 8:24], parts[:, :, 8:24])
    nothing = torch.zeros(2, 4, 32, 16)
    torch.testing.assert_close(generator(image, pose, nothing), generator(image, pose))


def test_a_generator_learns_to_carry_from_where_it_was() -> None:
    """At first it paints what it painted before, whatever is carried."""
    before = build_generator(TINY, generator_from("before")).eval()
    after = build_generator(CARRYING, generator_from("after")).eval()
    assert isinstance(before, AttentionGenerator)
    assert isinstance(after, AttentionGenerator)
    after.take(before)
    image, pose = pictures(name="i"), pictures(name="s")
    carried = torch.rand(2, 4, 32, 16, generator=generator_from("c"))
    painted, trust = after.paint(image, pose, carried)
    torch.testing.assert_close(painted, before(image, pose))
    torch.testing.assert_close(trust, torch.full_like(trust, 1 / (1 + math.exp(-2))))
    loss = after.paint(image, pose, carried)[0].square().sum() + after.paint(image, pose, carried)[1].sum()
    loss.backward()
    assert after.paint_fine[0].weight.grad[:, -8:].abs().sum() > 0  # type: ignore[index]


def test_the_published_generator_carries_nothing() -> None:
    with pytest.raises(UsageError, match="attention"):
        GeneratorConfig("residual", carry=True)
    generator = build_generator(GeneratorConfig("residual", 4, 1)).eval()
    image, pose = pictures(name="i"), pictures(name="s")
    assert torch.equal(generator(image, pose, torch.ones(2, 4, 32, 16)), generator(image, pose))
