"""Classes of the flow model and of the latent sampler: one row each, and one for "no class"."""

import pytest
import torch

from lediflow.models import LatentSampler, LatentSamplerSpec, VelocityModel


@pytest.fixture
def classified(velocity_spec, drawn):
    velocity_spec.num_classes = 4
    return drawn(VelocityModel(velocity_spec))


def inputs():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(3, 3, 16, 16, generator=generator), torch.randn(3, 4, 4, 4, generator=generator)


def test_the_velocity_depends_on_the_label(classified):
    x, z = inputs()
    first, second = (classified(x, 0.5, z, torch.full((3,), label)) for label in (0, 3))
    assert (first - second).abs().max() > 1e-3


def test_there_is_a_row_for_every_class_and_one_for_none(classified):
    assert classified.hourglass.condition.label.weight.shape == (5, 16)


def test_labels_left_out_mean_no_class(classified):
    x, z = inputs()
    torch.testing.assert_close(classified(x, 0.5, z), classified(x, 0.5, z, torch.full((3,), 4)))


@pytest.mark.parametrize("stranger", [-1, 5])
def test_an_unknown_class_is_refused_with_the_known_ones(stranger, classified):
    x, z = inputs()
    message = rf"labels: \[{stranger}\], but there are the classes 0 to 3 \(model\.velocity\.num_classes=4\)"
    with pytest.raises(ValueError, match=message):
        classified(x, 0.5, z, torch.tensor([0, stranger, 4]))


@pytest.mark.parametrize("labels", [torch.tensor([1]), torch.tensor([1, 2]), torch.ones(3)], ids=repr)
def test_labels_that_are_not_one_number_for_each_image_are_refused(labels, classified):
    x, z = inputs()
    with pytest.raises(
        ValueError, match=r"labels: .* for a batch of 3; give one class number for each image"
    ):
        classified(x, 0.5, z, labels)


def test_labels_of_a_model_without_classes_are_refused(velocity_spec):
    x, z = inputs()
    with pytest.raises(
        ValueError, match=r"labels: given, .* built without classes.*model\.velocity\.num_classes"
    ):
        VelocityModel(velocity_spec)(x, 0.5, z, torch.zeros(3, dtype=torch.long))


class TestLatentSampler:
    @pytest.fixture
    def sampler(self, velocity_spec, drawn):
        levels, mapping = velocity_spec.levels[-1:], velocity_spec.mapping
        return drawn(LatentSampler(LatentSamplerSpec(levels=levels, mapping=mapping, num_classes=4)))

    def test_the_velocity_depends_on_the_label_and_none_is_no_class(self, sampler):
        w = inputs()[1]
        first, none = (sampler(w, 0.5, labels=torch.full((3,), label)) for label in (0, 4))
        assert (first - none).abs().max() > 1e-3
        torch.testing.assert_close(sampler(w, 0.5), none)

    def test_an_unknown_class_is_refused_with_the_option(self, sampler):
        with pytest.raises(ValueError, match=r"labels: \[5\].* \(model\.latent_sampler\.num_classes=4\)"):
            sampler(inputs()[1], 0.5, labels=torch.tensor([0, 5, 4]))
