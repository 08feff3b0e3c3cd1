"""Classes and guidance: the velocity from v_0 past v_class, with velocities known in closed form."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from lediflow.errors import UserError
from lediflow.flow.noise import SampleNoise
from lediflow.models import (
    AuxiliaryModel,
    AuxiliarySpec,
    LevelSpec,
    MappingSpec,
    VelocitySpec,
    build_model,
)
from lediflow.sampling import LeDiFlowPipeline, SamplingConfig

SIZE, NUM_CLASSES = 8, 4
AUXILIARY = AuxiliarySpec(
    image_channels=1, patch_size=2, levels=[LevelSpec(depth=1, width=16, head_dim=8)], latent_channels=2
)


class Shifts(nn.Module):
    """Class k moves an image by 0.1 k in all, no class by -0.05; it counts the images it is asked about."""

    def __init__(self):
        super().__init__()
        self.spec = SimpleNamespace(image_channels=1, num_classes=NUM_CLASSES)
        self.unused = nn.Parameter(torch.zeros(1))  # tells the pipeline its device
        self.images_seen = 0

    def forward(self, x, t, z=None, labels=None, s=None):
        self.images_seen += len(x)
        none = torch.full((len(x),), NUM_CLASSES) if labels is None else labels
        shift = torch.where(none == NUM_CLASSES, -0.05, 0.1 * none)
        return shift[:, None, None, None].expand_as(x)


@pytest.fixture
def shifts():
    return Shifts()


@pytest.fixture
def pipeline(shifts):
    return LeDiFlowPipeline(shifts, None, None, image_size=SIZE)


def noise_of(count):
    return SampleNoise(0).normal(torch.arange(count), "prior", (1, SIZE, SIZE))


def moved(made, count):
    """How far each image went; where the range of pixels did not cut it off."""
    start = noise_of(count)
    inside = start.abs() < 0.3
    return torch.stack(
        [(image - x)[mask].mean() for image, x, mask in zip(made.images, start, inside, strict=True)]
    )


def test_the_jumps_of_a_flow_map_are_guided_likewise(shifts, pipeline):
    shifts.spec.is_flow_map = True
    made = pipeline(3, SamplingConfig(labels=[3], guidance=2.0, solver="jump", steps=2))
    torch.testing.assert_close(moved(made, 3), torch.full((3,), -0.05 + 2 * 0.35))
    assert made.nfe == 4 and shifts.images_seen == 3 * 4


@pytest.mark.parametrize("guidance", [-1.0, 0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("solver", ["euler", "heun3", "dopri5"])
def test_guidance_extrapolates_from_no_class_to_the_class(solver, guidance, pipeline):
    made = pipeline(3, SamplingConfig(labels=[3], guidance=guidance, solver=solver))
    expected = -0.05 + guidance * (0.3 - -0.05)
    torch.testing.assert_close(moved(made, 3), torch.full((3,), expected), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("labels", "guidance", "per_call"), [([], 1.0, 1), ([2], 1.0, 1), ([2], 0.0, 1), ([2], 3.0, 2)]
)
def test_the_cost_is_the_evaluations_that_the_model_made_for_each_image(
    labels, guidance, per_call, shifts, pipeline
):
    made = pipeline(5, SamplingConfig(labels=labels, guidance=guidance, solver="midpoint", steps=3))
    assert made.nfe == 6 * per_call
    assert shifts.images_seen == 5 * made.nfe


def test_labels_are_assigned_in_turn_by_image_number(pipeline):
    config = SamplingConfig(labels=[0, 2, 3])
    made = pipeline(5, config)
    assert made.start.labels.tolist() == [0, 2, 3, 0, 2]
    torch.testing.assert_close(moved(made, 5), torch.tensor([0.0, 0.2, 0.3, 0.0, 0.2]), atol=1e-5, rtol=0)
    torch.testing.assert_close(pipeline([4, 1], config).images, made.images[[4, 1]])


def test_without_labels_there_is_no_class(pipeline):
    made = pipeline(2)
    assert made.start.labels is None
    torch.testing.assert_close(moved(made, 2), torch.full((2,), -0.05), atol=1e-5, rtol=0)


def test_a_models_guided_velocity_is_made_of_its_two_velocities():
    spec = VelocitySpec(
        image_channels=1,
        patch_size=2,
        levels=[LevelSpec(depth=1, width=16, head_dim=8)],
        mapping=MappingSpec(depth=1, width=16),
        num_classes=3,
    )
    torch.manual_seed(0)
    model = build_model(spec)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    config = SamplingConfig(labels=[0, 2], guidance=2.5, solver="euler", steps=1)
    pipeline = LeDiFlowPipeline(model, None, None, image_size=SIZE)
    start = pipeline.start(torch.arange(2), config)
    with torch.no_grad():
        without, given = model(start.x, 0.0), model(start.x, 0.0, labels=torch.tensor([0, 2]))
    expected = start.x + without + 2.5 * (given - without)
    torch.testing.assert_close(pipeline.integrate(start, config).x, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("labels", "message"),
    [([1, 4], r"labels=\[4\]: the classes are 0 to 3"), ([-1], r"labels\[0\]=-1 must be at least 0")],
)
def test_unknown_classes_are_refused_with_the_option(labels, message, pipeline):
    with pytest.raises(UserError, match=message):
        pipeline(2, SamplingConfig(labels=labels))


def test_labels_for_models_without_classes_are_refused(shifts):
    shifts.spec.num_classes = 0
    with pytest.raises(UserError, match=r"labels=\[1\]: these models were trained without classes"):
        LeDiFlowPipeline(shifts, None, None, image_size=SIZE)(2, SamplingConfig(labels=[1]))


@pytest.mark.parametrize("name", ["guidance", "latent_guidance"])
def test_guidance_without_labels_is_refused(name):
    with pytest.raises(ValueError, match=rf"^{name}=2\.0 without labels: .*give labels=\[\.\.\.\]"):
        SamplingConfig(**{name: 2.0})


class TestLatents:
    """A latent sampler that `Shifts` latents by class, before a flow that shifts images, from a decoder of zeros."""

    @pytest.fixture
    def chain(self):
        def build(flow_classes, sampler_classes):
            flow, sampler = Shifts(), Shifts()
            flow.spec.num_classes, sampler.spec.num_classes = flow_classes, sampler_classes
            auxiliary = AuxiliaryModel(AUXILIARY)
            return LeDiFlowPipeline(flow, auxiliary, sampler, image_size=SIZE, prior_widening=0.0)

        return build

    @pytest.mark.parametrize(
        ("labels", "scale", "expected"),
        [([1, 3], 1.0, [0.1, 0.3, 0.1]), ([1, 3], 2.0, [0.25, 0.65, 0.25]), ([], 1.0, [-0.05] * 3)],
    )
    def test_z_is_drawn_with_its_class_and_its_own_guidance(self, labels, scale, expected, chain):
        config = SamplingConfig(labels=labels, latent_guidance=scale, latent_solver="euler", latent_steps=1)
        made = chain(NUM_CLASSES, NUM_CLASSES)(3, config)
        w = SampleNoise(0).normal(torch.arange(3), "latent noise", tuple(made.start.z.shape[1:]))
        torch.testing.assert_close((made.start.z - w).mean((1, 2, 3)), torch.tensor(expected))
        assert (made.start.labels is None) == (not labels)

    def test_either_model_may_have_no_classes(self, chain, caplog):
        config = SamplingConfig(labels=[2], latent_solver="euler", latent_steps=1)
        only_sampler = chain(0, NUM_CLASSES)
        assert only_sampler(2, only_sampler.resolved(config)).start.labels is None
        assert caplog.text == ""
        only_flow = chain(NUM_CLASSES, 0)
        made = only_flow(2, only_flow.resolved(config))
        assert made.start.labels.tolist() == [2, 2]
        assert "labels=[2]: the latent sampler was trained without classes" in caplog.text
        w = SampleNoise(0).normal(torch.arange(2), "latent noise", tuple(made.start.z.shape[1:]))
        torch.testing.assert_close((made.start.z - w).mean(), torch.tensor(-0.05))
        with pytest.raises(
            UserError, match=r"latent_guidance=2\.0: there is no latent sampler .* with classes"
        ):
            only_flow(1, SamplingConfig(labels=[2], latent_guidance=2.0))

    def test_models_of_different_classes_are_refused(self, chain):
        with pytest.raises(ValueError, match="the flow has 4 classes and the latent sampler 3"):
            chain(4, 3)
