"""The nine numbers of augmentation as an input of each model."""

from dataclasses import replace

import pytest
import torch

from lediflow.models import AuxiliaryModel, LatentSampler, VelocityModel, describe_model, parameter_groups
from lediflow.models.export import describe, load_model, save_model, spec_from_config

NUMBERS = torch.tensor([[0, 0, 0, -1, 1, 0, 0, 0, 0.0], [1, 0, 0, 0, 0, 0, 0, 0.5, 0], [0.0] * 9])


def images(channels=3, side=16):
    return torch.randn(3, channels, side, side, generator=torch.Generator().manual_seed(0))


@pytest.fixture(params=["velocity", "latent_sampler", "encoder", "decoder"])
def called(request, auxiliary_spec, velocity_spec, latent_sampler_spec, drawn):
    """A model with the input, as a function of the numbers."""
    torch.manual_seed(0)  # of the Fourier features
    x, z = images(), images(4, 4)
    if request.param == "velocity":
        flow = drawn(VelocityModel(replace(velocity_spec, augmentation=True)))
        return lambda numbers=None: flow(x, 0.3, z, augmentation=numbers)
    if request.param == "latent_sampler":
        sampler = drawn(LatentSampler(replace(latent_sampler_spec, augmentation=True)))
        return lambda numbers=None: sampler(z, 0.3, augmentation=numbers)
    auxiliary = drawn(AuxiliaryModel(replace(auxiliary_spec, augmentation=True)))
    if request.param == "encoder":
        return lambda numbers=None: auxiliary.encode(x, augmentation=numbers).mean
    return lambda numbers=None: auxiliary.decode(z, augmentation=numbers).mean


def test_augmentation_numbers_affect_their_image_and_zeros_equal_omitting_them(called):
    plain, given = called(), called(NUMBERS)
    torch.testing.assert_close(called(torch.zeros(3, 9)), plain)
    differs = (given - plain).abs().flatten(1).amax(dim=1)
    assert (differs[:2] > 1e-3).all() and differs[2] < 1e-6


def test_numbers_of_another_shape_are_refused(called):
    with pytest.raises(ValueError, match=r"augmentation: shape \(3, 8\) for a batch of 3.*takes 9 numbers"):
        called(torch.zeros(3, 8))


def test_a_model_without_the_input_refuses_the_numbers(auxiliary_spec, velocity_spec, latent_sampler_spec):
    x, z = images(), images(4, 4)
    calls = [
        lambda: VelocityModel(velocity_spec)(x, 0.3, z, augmentation=NUMBERS),
        lambda: LatentSampler(latent_sampler_spec)(z, 0.3, augmentation=NUMBERS),
        lambda: AuxiliaryModel(auxiliary_spec).encode(x, augmentation=NUMBERS),
        lambda: AuxiliaryModel(auxiliary_spec).decode(z, augmentation=NUMBERS),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="augmentation: given, but this model was built without"):
            call()


def test_a_training_pass_of_the_auxiliary_model_gives_the_numbers_to_both_halves(auxiliary_spec, drawn):
    model, noise = drawn(AuxiliaryModel(replace(auxiliary_spec, augmentation=True))), torch.randn(3, 4, 4, 4)
    posterior, z, prior = model(images(), noise, augmentation=NUMBERS)
    torch.testing.assert_close(posterior, model.encode(images(), augmentation=NUMBERS))
    torch.testing.assert_close(prior, model.decode(z, augmentation=NUMBERS))


def test_the_auxiliary_model_initially_ignores_the_augmentation_input_and_can_learn_it(auxiliary_spec):
    model = AuxiliaryModel(replace(auxiliary_spec, augmentation=True))
    assert torch.equal(model.encode(images(), augmentation=NUMBERS).mean, model.encode(images()).mean)
    posterior = model.encode(images(), augmentation=NUMBERS)
    posterior.mean.square().sum().backward()
    assert model.encoder.augmentation[1].weight.grad.abs().max() > 0


def test_the_maps_of_the_numbers_do_not_decay_and_are_drawn_in_the_tree(auxiliary_spec):
    model = AuxiliaryModel(replace(auxiliary_spec, augmentation=True))
    undecayed = [
        weight for group in parameter_groups(model, lr=1e-3, weight_decay=0.1) if not group["weight_decay"]
        for weight in group["params"]
    ]  # fmt: skip
    for half in (model.encoder, model.decoder):
        assert any(half.augmentation[1].weight is weight for weight in undecayed)
    assert "9 numbers -> 32" in describe_model(model)


def test_exports_older_than_the_input_are_models_without_it(auxiliary_spec, latent_sampler_spec, tmp_path):
    for spec in (auxiliary_spec, latent_sampler_spec):
        config = describe(spec)
        del config["spec"]["augmentation"]
        assert spec_from_config(config) == spec


def test_an_export_keeps_the_input_and_its_frequencies(auxiliary_spec, drawn, tmp_path):
    model = drawn(AuxiliaryModel(replace(auxiliary_spec, augmentation=True)))
    save_model(model, tmp_path)
    torch.testing.assert_close(
        load_model(tmp_path).encode(images(), augmentation=NUMBERS),
        model.encode(images(), augmentation=NUMBERS),
    )
