"""w -> z -> prior -> x -> y, with velocities whose paths are known in closed form, and with real tiny models."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from harness.drawn_models import drawn_model
from torch import nn

from lediflow.errors import UserError
from lediflow.flow.gaussians import gaussian_log_density
from lediflow.flow.noise import SampleNoise
from lediflow.models import (
    AuxiliarySpec,
    LatentSamplerSpec,
    LevelSpec,
    MappingSpec,
    Prior,
    VelocitySpec,
    save_model,
)
from lediflow.sampling import LeDiFlowPipeline, SamplingConfig

SIZE = 8
LEVEL = LevelSpec(depth=1, width=16, head_dim=8)
MAPPING = MappingSpec(depth=1, width=16)
AUXILIARY = AuxiliarySpec(image_channels=1, patch_size=2, levels=[LEVEL], latent_channels=2)


class Analytic(nn.Module):
    """A velocity given as a formula."""

    def __init__(self, formula):
        super().__init__()
        self.spec = SimpleNamespace(image_channels=1)
        self.formula = formula
        self.unused = nn.Parameter(torch.zeros(1))  # tells the pipeline its device

    def forward(self, x, t, z=None):
        return self.formula(x, t, z)


class KnownPrior(nn.Module):
    """mu(z) = first channel of z, enlarged; log sigma^2 = -2 everywhere."""

    spec = AUXILIARY

    def decode(self, z):
        mean = nn.functional.interpolate(z[:, :1], size=(SIZE, SIZE))
        return Prior(mean, torch.full_like(mean, -2.0))


class Halving(nn.Module):
    """A latent velocity that maps w to w / 2 in a straight line: v = -w_0 / 2 with w = w_0 (1 - t / 2)."""

    def forward(self, w, t):
        return -0.5 * w / (1 - t / 2)


@pytest.fixture(scope="module")
def learned():
    """The three models, with weights drawn."""
    velocity = VelocitySpec(
        image_channels=1, patch_size=2, levels=[LEVEL], mapping=MAPPING, latent_shape=[2, 4, 4]
    )
    sampler = LatentSamplerSpec(latent_channels=2, levels=[LEVEL], mapping=MAPPING)
    return LeDiFlowPipeline(
        drawn_model(velocity, 1, std=0.1),
        drawn_model(AUXILIARY, 2, std=0.1),
        drawn_model(sampler, 3, std=0.1),
        image_size=SIZE,
    )


@pytest.fixture(scope="module")
def gaussian():
    spec = VelocitySpec(image_channels=1, patch_size=2, levels=[LEVEL], mapping=MAPPING)
    return LeDiFlowPipeline(drawn_model(spec, 4, std=0.1), None, None, image_size=SIZE)


def analytic(formula):
    """A pipeline from Gaussian noise along the formula."""
    return LeDiFlowPipeline(Analytic(formula), None, None, image_size=SIZE)


def noise_of(count, seed=0):
    return SampleNoise(seed).normal(torch.arange(count), "prior", (1, SIZE, SIZE))


@pytest.mark.parametrize("kind", ["learned", "gaussian"])
def test_an_image_depends_on_its_number_alone(kind, request):
    pipeline = request.getfixturevalue(kind)
    together = pipeline(5).images
    tolerance = {"rtol": 0, "atol": 1e-4}  # matrix products round otherwise for another batch; a byte is 8e-3
    torch.testing.assert_close(pipeline([3, 1]).images, together[[3, 1]], **tolerance)
    torch.testing.assert_close(pipeline(range(2, 5)).images, together[2:], **tolerance)


@pytest.mark.parametrize("kind", ["learned", "gaussian"])
def test_numbers_and_seeds_give_different_images(kind, request):
    pipeline = request.getfixturevalue(kind)
    first, second = pipeline(2).images
    assert (first - second).abs().max() > 0.1
    assert (pipeline(1, SamplingConfig(seed=1)).images[0] - first).abs().max() > 0.1


def test_euler_along_linear_growth_is_the_compound_interest_formula():
    made = analytic(lambda x, t, z: -0.5 * x)(3, SamplingConfig(solver="euler", steps=4))
    expected = noise_of(3) * (1 - 0.5 / 4) ** 4
    torch.testing.assert_close(made.images, expected.clamp(-1, 1))
    assert made.nfe == 4


@pytest.mark.parametrize(
    ("solver", "evaluations"), [("euler", 3), ("midpoint", 6), ("heun3", 9), ("rk4", 12)]
)
def test_a_straight_path_is_exact_with_every_solver_and_its_cost_is_counted(solver, evaluations):
    made = analytic(lambda x, t, z: torch.full_like(x, 0.25))(2, SamplingConfig(solver=solver, steps=3))
    torch.testing.assert_close(made.images, (noise_of(2) + 0.25).clamp(-1, 1))
    assert made.nfe == evaluations


def test_time_runs_from_the_prior_at_zero_to_the_image_at_one():
    seen = []

    def formula(x, t, z):
        seen.append(float(t))
        return torch.zeros_like(x)

    analytic(formula)(1, SamplingConfig(solver="euler", steps=4))
    assert seen == [0.0, 0.25, 0.5, 0.75]


def test_w_becomes_z_becomes_a_prior_becomes_an_image():
    """The whole chain in closed form: z = w / 2, x = z + sigma noise, y = x + mean of z."""
    velocity = Analytic(lambda x, t, z: z.mean(dim=(1, 2, 3), keepdim=True).expand_as(x))
    pipeline = LeDiFlowPipeline(velocity, KnownPrior(), Halving(), image_size=SIZE)
    made = pipeline(3, SamplingConfig(seed=5, solver="euler", steps=1, latent_solver="euler", latent_steps=1))
    ids, noise = torch.arange(3), SampleNoise(5)
    z = noise.normal(ids, "latent noise", (2, 4, 4)) / 2
    mean = z[:, :1].repeat_interleave(2, dim=-1).repeat_interleave(2, dim=-2)
    x = mean + torch.tensor(-1.0).exp() * noise.normal(ids, "prior", (1, SIZE, SIZE))
    torch.testing.assert_close(made.start.z, z)
    torch.testing.assert_close(made.start.x, x)
    torch.testing.assert_close(made.images, (x + z.mean(dim=(1, 2, 3), keepdim=True)).clamp(-1, 1))


def test_a_widened_prior_is_drawn_from_before_the_temperature_scales_it():
    """The identity as a flow: y is the draw, of deviation temperature sqrt((2/e)^2 + 0.3^2)."""
    still = Analytic(lambda x, t, z: torch.zeros_like(x))
    pipeline = LeDiFlowPipeline(
        still, KnownPrior(), Halving(), image_size=SIZE, prior_widening=0.3, prior_scale=2.0
    )
    made = pipeline(2, SamplingConfig(temperature=0.5))
    deviation = (4 * math.exp(-2) + 0.09) ** 0.5
    torch.testing.assert_close(made.start.x, made.start.prior.mean + 0.5 * deviation * noise_of(2))
    torch.testing.assert_close(
        made.start.prior.logvar, torch.full((2, 1, SIZE, SIZE), 2 * math.log(deviation))
    )


def test_the_widened_priors_density_is_the_one_that_starts_are_drawn_from():
    """What a log-likelihood begins with: log N(x; mu, e^-2 + s^2), here at the mean."""
    still = Analytic(lambda x, t, z: torch.zeros_like(x))
    pipeline = LeDiFlowPipeline(still, KnownPrior(), Halving(), image_size=SIZE, prior_widening=0.5)
    prior = pipeline.prior(torch.ones(2, 2, 4, 4))
    expected = -0.5 * SIZE**2 * math.log(2 * math.pi * (math.exp(-2) + 0.25))
    torch.testing.assert_close(gaussian_log_density(prior.mean, *prior), torch.full((2,), expected))


def test_temperature_scales_the_priors_standard_deviation(learned):
    starts = {t: learned(2, SamplingConfig(temperature=t, steps=0)).start for t in (0.0, 0.5, 1.0)}
    mean = starts[1.0].prior.mean
    assert torch.equal(starts[0.0].x, mean)
    torch.testing.assert_close(starts[0.5].x - mean, 0.5 * (starts[1.0].x - mean))


def test_temperature_zero_of_the_baseline_starts_at_zero(gaussian):
    assert not gaussian(2, SamplingConfig(temperature=0.0, steps=0)).images.any()


def test_no_steps_show_draws_of_the_prior(learned):
    made = learned(2, SamplingConfig(steps=0))
    mean, logvar = made.start.prior
    draw = mean + logvar.exp().sqrt() * noise_of(2)
    torch.testing.assert_close(made.images, draw.clamp(-1, 1))
    assert made.nfe == 0


def test_latents_are_decoded_by_the_codec():
    pipeline = LeDiFlowPipeline(
        Analytic(lambda x, t, z: torch.zeros_like(x)),
        None,
        None,
        image_size=SIZE,
        decode=lambda latents: 5 * latents,
    )
    torch.testing.assert_close(pipeline(1).images, (5 * noise_of(1)).clamp(-1, 1))


@pytest.mark.parametrize("kind", ["learned", "gaussian"])
def test_a_loaded_pipeline_generates_the_same_images(kind, request, tmp_path):
    pipeline = request.getfixturevalue(kind)
    pipeline.save_pretrained(tmp_path / "saved")
    loaded = LeDiFlowPipeline.from_pretrained(tmp_path / "saved")
    assert loaded.modules().keys() == pipeline.modules().keys()
    assert torch.equal(loaded(3).images, pipeline(3).images)


def test_a_pipeline_of_latents_is_not_loaded_as_one_of_pixels(gaussian, tmp_path):
    pipeline = LeDiFlowPipeline(gaussian.velocity, None, None, image_size=SIZE, decode=torch.neg)
    pipeline.save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"models of latents of a codec, given is None.*decode="):
        LeDiFlowPipeline.from_pretrained(tmp_path)
    assert torch.equal(
        LeDiFlowPipeline.from_pretrained(tmp_path, decode=torch.neg)(2).images, pipeline(2).images
    )


def test_a_saved_pipeline_keeps_its_width_and_older_ones_have_none(learned, tmp_path):
    widened = LeDiFlowPipeline(**learned.modules(), image_size=SIZE, prior_widening=0.3, prior_scale=3.0)
    widened.save_pretrained(tmp_path)
    loaded = LeDiFlowPipeline.from_pretrained(tmp_path)
    assert (loaded.prior_widening, loaded.prior_scale) == (0.3, 3.0)
    (tmp_path / "pipeline.json").write_text(
        json.dumps({"image_size": SIZE, "models": list(learned.modules())})
    )
    save_model(learned.velocity, tmp_path / "velocity")  # without a record of its width
    older = LeDiFlowPipeline.from_pretrained(tmp_path)
    assert (older.prior_widening, older.prior_scale) == (0.0, 1.0)


def test_noise_has_no_prior_to_widen(gaussian):
    with pytest.raises(ValueError, match=r"baseline has no prior to widen"):
        LeDiFlowPipeline(gaussian.velocity, None, None, image_size=SIZE, prior_widening=0.3)


def test_models_are_frozen_and_in_evaluation_mode(learned):
    for module in learned.modules().values():
        assert not module.training
        assert not any(weight.requires_grad for weight in module.parameters())


def test_a_learned_prior_needs_both_of_its_models(learned):
    with pytest.raises(ValueError, match=r"needs both the auxiliary model and the latent sampler"):
        LeDiFlowPipeline(learned.velocity, learned.auxiliary, None, image_size=SIZE)


@pytest.fixture(scope="module")
def maps():
    """Flow and latent sampler as flow maps."""
    two = LevelSpec(depth=2, width=16, head_dim=8)
    velocity = VelocitySpec(
        image_channels=1,
        patch_size=2,
        levels=[two],
        mapping=MAPPING,
        latent_shape=[2, 4, 4],
        is_flow_map=True,
    )
    sampler = LatentSamplerSpec(latent_channels=2, levels=[two], mapping=MAPPING, is_flow_map=True)
    return LeDiFlowPipeline(
        drawn_model(velocity, 1, std=0.1),
        drawn_model(AUXILIARY, 2, std=0.1),
        drawn_model(sampler, 3, std=0.1),
        image_size=SIZE,
    )


def jumps(**options):
    return SamplingConfig(
        **{"solver": "jump", "steps": 1, "latent_solver": "jump", "latent_steps": 1} | options
    )


def test_flow_maps_jump_from_time_to_time(maps):
    made = maps(2, jumps(steps=2))
    with torch.no_grad():
        w = SampleNoise(0).normal(torch.arange(2), "latent noise", (2, 4, 4))
        z = w + maps.latent_sampler(w, 0.0, s=1.0)
        middle = made.start.x + 0.5 * maps.velocity(made.start.x, 0.0, z, s=0.5)
        y = middle + 0.5 * maps.velocity(middle, 0.5, z, s=1.0)
    torch.testing.assert_close(made.start.z, z)
    torch.testing.assert_close(made.images, y.clamp(-1, 1))
    assert made.nfe == 2


def test_a_flow_map_is_run_by_jumps_and_a_velocity_by_midpoint_by_default(maps, learned):
    assert torch.equal(maps(2, SamplingConfig(steps=1)).images, maps(2, jumps()).images)
    midpoint = SamplingConfig(solver="midpoint", latent_solver="midpoint", latent_steps=4)
    assert torch.equal(learned(2).images, learned(2, midpoint).images)


def test_resolved_settings_are_those_that_the_models_are_run_with(maps, learned, gaussian):
    """They are what records hold, and the same as before there was a default for each kind of model."""
    for pipeline, expected in ((maps, ("jump", "jump", 1)), (learned, ("midpoint", "midpoint", 4))):
        found = pipeline.resolved(SamplingConfig(seed=4))
        assert (found.solver, found.latent_solver, found.latent_steps) == expected
        assert (found.seed, found.steps) == (4, 2)
    assert gaussian.resolved(SamplingConfig(latent_solver="jump")).solver == "midpoint"  # it has no latents
    given = SamplingConfig(solver="heun3", latent_solver="euler", latent_steps=2)
    assert learned.resolved(given) == given


def test_a_loaded_flow_map_is_one(maps, tmp_path):
    maps.save_pretrained(tmp_path)
    loaded = LeDiFlowPipeline.from_pretrained(tmp_path)
    assert torch.equal(loaded(2, jumps()).images, maps(2, jumps()).images)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"solver": "midpoint"}, "solver=midpoint: this flow is a flow map, .* use solver=jump steps=1"),
        (
            {"latent_solver": "heun3"},
            "latent sampler is a flow map, .* use latent_solver=jump latent_steps=1",
        ),
    ],
)
def test_a_solver_on_a_flow_map_is_refused(maps, options, message):
    for use in (maps.resolved, lambda config: maps(1, config)):
        with pytest.raises(UserError, match=message):
            use(jumps(**options))


@pytest.mark.parametrize("name", ["solver", "latent_solver"])
def test_jumps_of_a_velocity_are_refused(learned, name):
    with pytest.raises(UserError, match=f"{name}=jump: .* is a velocity, .* use {name}=midpoint, or distil"):
        learned(1, SamplingConfig(**{name: "jump"}))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"solver": "rk5"}, r"did you mean 'rk4'"),
        ({"latent_solver": "huen2"}, r"did you mean 'heun2'"),
        ({"steps": -1}, "steps=-1 must be at least 0"),
        ({"temperature": float("nan")}, "temperature=nan must be at least 0"),
        ({"temperature": -1.0}, r"temperature=-1\.0 must be at least 0"),
        ({"guidance": float("inf"), "labels": [0]}, "guidance=inf"),
        ({"labels": [-1]}, r"labels\[0\]=-1 must be at least 0"),
        ({"seed": 2**64}, r"seed=18446744073709551616 must be at least 0 and at most 2\^64 - 1"),
        ({"steps": 2.5}, r"steps=2\.5 must be a whole number"),
    ],
)
def test_impossible_settings_are_refused_before_any_work(options, message):
    with pytest.raises(ValueError, match=message):
        SamplingConfig(**options)


def test_fewer_than_no_images_cannot_be_drawn(learned):
    with pytest.raises(ValueError, match="-3 images are requested"):
        learned(-3)


@pytest.mark.parametrize("indices", [[0.5], "3", None, torch.tensor([1.0])], ids=str)
def test_numbers_of_images_that_are_not_whole_are_refused(learned, indices):
    with pytest.raises(
        ValueError, match=r"images .* are requested; give a number of images, or their numbers"
    ):
        learned(indices)


def test_integers_of_numpy_and_torch_number_images_as_pythons_do(learned):
    images = learned(2).images
    for indices in (np.int64(2), np.arange(2), torch.arange(2)):
        assert torch.equal(learned(indices).images, images)


def test_a_folder_without_a_pipeline_is_refused(tmp_path):
    with pytest.raises(
        ValueError, match=r"pipeline\.json cannot be read .*give a folder that save_pretrained wrote"
    ):
        LeDiFlowPipeline.from_pretrained(tmp_path)
