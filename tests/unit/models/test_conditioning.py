"""The three ways in which the latent enters the flow model, against the same thing done by hand."""

from dataclasses import replace

import pytest
import torch
from einops import repeat

from lediflow.models import VelocityModel, count_parameters
from lediflow.models.specs import CONDITIONINGS, VelocitySpec
from lediflow.models.velocity import resized


def inputs(size=3, latent=4):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(size, 3, 16, 16, generator=generator)
    return x, torch.randn(size, 4, latent, latent, generator=generator)


def entering(velocity_spec, conditioning, latent=4):
    return replace(velocity_spec, conditioning=conditioning, latent_shape=[4, latent, latent])


@pytest.mark.parametrize("conditioning", CONDITIONINGS)
def test_the_velocity_depends_on_the_latent(conditioning, velocity_spec, drawn):
    model, (x, z) = drawn(VelocityModel(entering(velocity_spec, conditioning))), inputs()
    assert (model(x, 0.5, z) - model(x, 0.5, z.roll(1, dims=0))).abs().max() > 1e-3


@pytest.mark.parametrize("conditioning", CONDITIONINGS)
def test_latents_do_not_influence_other_samples(conditioning, velocity_spec, drawn):
    model, (x, z) = drawn(VelocityModel(entering(velocity_spec, conditioning))), inputs()
    torch.testing.assert_close(model(x, 0.5, z)[1:2], model(x[1:2], 0.5, z[1:2]))


@pytest.mark.parametrize(
    ("conditioning", "extra"),
    [
        ("vector", 64 * 16),  # entries of z x width of the mapping network
        ("concat", 4 * 2 * 2 * 16),  # channels of z x pixels of a patch x width of the finest level
        ("tokens", 4 * 32),  # channels of z x width of the coarsest level
    ],
)
def test_each_conditioning_adds_its_one_map(conditioning, extra, velocity_spec):
    baseline = VelocityModel(replace(velocity_spec, conditioning=conditioning, latent_shape=[]))
    assert count_parameters(baseline) == count_parameters(
        VelocityModel(replace(velocity_spec, latent_shape=[]))
    )
    with_latent = VelocityModel(entering(velocity_spec, conditioning))
    assert count_parameters(with_latent) - count_parameters(baseline) == extra


def test_vector_flattens_the_latent(velocity_spec, drawn):
    model, (x, z) = drawn(VelocityModel(velocity_spec)), inputs()
    expected = model.hourglass(x, torch.full((3,), 0.5), conditioning=z.reshape(3, 64))
    torch.testing.assert_close(model(x, 0.5, z), expected)


def test_concat_appends_the_enlarged_latent_to_the_image(velocity_spec, drawn):
    model, (x, z) = drawn(VelocityModel(entering(velocity_spec, "concat"))), inputs()
    enlarged = repeat(z, "b c h w -> b c (h p) (w q)", p=4, q=4)
    expected = model.hourglass(torch.cat((x, enlarged), dim=1), torch.full((3,), 0.5))
    torch.testing.assert_close(model(x, 0.5, z), expected)


@pytest.mark.parametrize("latent", [2, 4])
def test_tokens_adds_each_projected_latent_pixel_to_the_coarsest_tokens_it_covers(
    latent, velocity_spec, drawn
):
    model, (x, z) = drawn(VelocityModel(entering(velocity_spec, "tokens", latent))), inputs(latent=latent)
    seen = []
    model.hourglass.mid_level.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0]))
    model(x, 0.5, z)
    model(x, 0.5, torch.zeros_like(z))
    times = 4 // latent  # 16 pixels, patches of 2 and one merge leave 4 x 4 tokens
    projected = torch.einsum("bchw,kc->bhwk", z, model.latent_in.weight)
    expected = repeat(projected, "b h w k -> b (h p) (w q) k", p=times, q=times)
    torch.testing.assert_close(seen[0] - seen[1], expected, atol=1e-5, rtol=1e-5)  # a difference of sums


def test_conditioning_by_tokens_initially_has_no_effect_and_learns(velocity_spec, drawn):
    model, (x, z) = VelocityModel(entering(velocity_spec, "tokens")), inputs()
    drawn(model.hourglass)
    torch.testing.assert_close(model(x, 0.5, z), model(x, 0.5, torch.zeros_like(z)))
    model(x, 0.5, z).square().sum().backward()
    assert model.latent_in.weight.grad.abs().max() > 0


def test_a_latent_finer_than_the_grid_is_averaged_onto_it():
    _, z = inputs(latent=8)
    expected = z.unflatten(2, (4, 2)).unflatten(4, (4, 2)).mean(dim=(3, 5))
    torch.testing.assert_close(resized(z, 4, 4), expected)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"conditioning": "token"}, r"'token': known are vector, concat, tokens; did you mean 'tokens'"),
        (
            {"latent_shape": [4, 4]},
            r"latent_shape \[4, 4\] \(model\.velocity\.latent_shape\): give channels, height",
        ),
        ({"latent_shape": [4, 0, 4]}, r"latent_shape\[1\]=0 must be at least 1"),
        ({"latent_shape": [4, -4, 4]}, r"latent_shape\[1\]=-4 must be at least 1"),
        ({"num_classes": -1}, "num_classes=-1 must be at least 0"),
        ({"levels": []}, "levels: the list is empty"),
        ({"patch_size": 0}, "patch_size=0 must be at least 1"),
    ],
)
def test_invalid_specifications_are_refused(fields, message, velocity_spec):
    given = {"image_channels": 3, "patch_size": 2, "levels": velocity_spec.levels} | fields
    with pytest.raises(ValueError, match=message):
        VelocitySpec(**given)


@pytest.mark.parametrize("conditioning", CONDITIONINGS)
def test_a_latent_of_another_shape_is_refused_with_both_shapes(conditioning, velocity_spec):
    x, z = inputs(latent=8)
    with pytest.raises(ValueError, match=r"z: a latent of 4x8x8 per image, .* built for 4x4x4"):
        VelocityModel(entering(velocity_spec, conditioning))(x, 0.5, z)


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("conditioning", CONDITIONINGS)
def test_a_latent_too_many_or_too_few_is_refused(conditioning, count, velocity_spec):
    x, z = inputs()
    with pytest.raises(
        ValueError, match=rf"z: {count} latents .*\(model\.velocity\.latent_shape\) for 3 images"
    ):
        VelocityModel(entering(velocity_spec, conditioning))(x, 0.5, z[:1].repeat(count, 1, 1, 1))


def test_an_image_of_other_channels_is_refused_by_the_setting(velocity_spec):
    x, z = inputs()
    with pytest.raises(ValueError, match=r"2 channels: .* built for 3 \(model\.velocity\.image_channels\)"):
        VelocityModel(velocity_spec)(x[:, :2], 0.5, z)


def test_an_image_that_does_not_divide_and_a_wide_kernel_name_the_setting(velocity_spec):
    _, z = inputs()
    model = VelocityModel(velocity_spec)
    with pytest.raises(
        ValueError, match=r"image of 18x16.*multiples of 4.*smaller model\.velocity\.patch_size"
    ):
        model(torch.zeros(3, 3, 18, 16), 0.5, z)
    with pytest.raises(
        ValueError, match=r"kernel 3 is wider than its 2x2 .*model\.velocity\.levels\[0\]\.kernel_size"
    ):
        model(torch.zeros(3, 3, 4, 4), 0.5, z)
