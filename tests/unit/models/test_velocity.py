from dataclasses import replace

import pytest
import torch

from lediflow.models import LatentSampler, VelocityModel


def inputs(size=3):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(size, 3, 16, 16, generator=generator), torch.randn(size, 4, 4, 4, generator=generator)


def test_one_time_for_all_and_one_each_are_the_same(velocity_spec, drawn):
    model, (x, z) = drawn(VelocityModel(velocity_spec)), inputs()
    one_each = model(x, torch.full((3,), 0.25), z)
    torch.testing.assert_close(model(x, 0.25, z), one_each)
    torch.testing.assert_close(model(x, torch.tensor(0.25), z), one_each)


def test_without_a_latent_it_is_the_flow_matching_baseline(velocity_spec, drawn):
    velocity_spec.latent_shape = []
    model, (x, z) = drawn(VelocityModel(velocity_spec)), inputs()
    assert model(x, 0.5).shape == x.shape
    with pytest.raises(ValueError, match="z: given, but this flow model has no latent"):
        model(x, 0.5, z)


def test_a_forgotten_latent_is_named(velocity_spec):
    with pytest.raises(ValueError, match=r"z: none given, .* a latent of 4x4x4"):
        VelocityModel(velocity_spec)(inputs()[0], 0.5)


def test_the_latent_sampler_moves_latents_with_time(latent_sampler_spec, drawn):
    model, (_, w) = drawn(LatentSampler(latent_sampler_spec)), inputs()
    assert model(w, 0.2).shape == w.shape
    assert (model(w, 0.2) - model(w, 0.7)).abs().max() > 1e-3


def test_the_latent_sampler_refuses_latents_of_other_channels(latent_sampler_spec):
    with pytest.raises(ValueError, match=r"3 channels: .* \(model\.latent_sampler\.latent_channels\)"):
        LatentSampler(latent_sampler_spec)(torch.zeros(1, 3, 4, 4), 0.5)


def test_a_flow_map_has_two_times_and_the_weights_of_its_velocity(velocity_spec, latent_sampler_spec, drawn):
    x, z = inputs()
    latent_sampler_spec.levels[0].depth = 2
    for kind, spec, given in (
        (VelocityModel, velocity_spec, {"x": x, "z": z}),
        (LatentSampler, latent_sampler_spec, {"w": z}),
    ):
        velocity, flow_map = kind(spec), kind(replace(spec, is_flow_map=True))
        flow_map.load_state_dict(drawn(velocity).state_dict())
        assert torch.equal(flow_map(**given, t=0.25, s=0.25), velocity(**given, t=0.25))
        assert (flow_map(**given, t=0.25, s=0.75) - velocity(**given, t=0.25)).abs().max() > 1e-3
        with pytest.raises(ValueError, match=r"is a velocity, with one time t.*objective=flow_map"):
            velocity(**given, t=0.25, s=0.75)


def test_a_flow_map_of_one_layer_is_refused(latent_sampler_spec):
    with pytest.raises(
        ValueError, match=r"has one layer; set model\.latent_sampler\.levels\[0\]\.depth to 2"
    ):
        replace(latent_sampler_spec, is_flow_map=True)
