"""Lines and arcs in closed form; frames of the ways begin and end alike."""

import math

import pytest
import torch
from harness.edited import tiny_pipeline

from lediflow.editing.interpolation import WAYS, Ends, frames_along, linear, noise_of_seeds, spherical
from lediflow.editing.inversion import encoded, latents_to_noise, noise_to_latents
from lediflow.errors import UserError
from lediflow.sampling import SamplingConfig
from lediflow.sampling.options import Method

DOPRI5 = Method("dopri5", 4)


@pytest.fixture(scope="module")
def pipeline():
    return tiny_pipeline()


def test_the_middle_of_a_right_angle_is_its_diagonal():
    ends = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    half = math.sqrt(0.5)
    torch.testing.assert_close(spherical(ends, 3), torch.tensor([[1.0, 0.0], [half, half], [0.0, 1.0]]))
    torch.testing.assert_close(linear(ends, 3)[1], torch.tensor([0.5, 0.5]))


def test_an_arc_keeps_the_norm_and_equal_angles():
    first, last = torch.nn.functional.normalize(torch.randn(2, 9, generator=torch.manual_seed(0)), dim=1)
    path = spherical(torch.stack([first, last]), 7)
    torch.testing.assert_close(path.norm(dim=1), torch.ones(7))
    steps = (path[1:] * path[:-1]).sum(dim=1)
    torch.testing.assert_close(steps, steps[:1].expand(6))


@pytest.mark.parametrize("path", [linear, spherical])
def test_the_ends_are_exact_and_equal_ends_give_equal_frames(path):
    ends = torch.randn(2, 2, 3, 3, generator=torch.manual_seed(1))
    assert torch.equal(path(ends, 5)[0], ends[0])
    assert torch.equal(path(ends, 5)[-1], ends[1])
    same = path(ends[:1].repeat(2, 1, 1, 1), 10)
    torch.testing.assert_close(same, ends[:1].expand(10, 2, 3, 3), rtol=0, atol=1e-6)
    assert same.isfinite().all()


def test_opposite_ends_have_no_arc():
    with pytest.raises(UserError, match="path=linear"):
        spherical(torch.tensor([[1.0, 2.0], [-1.0, -2.0]]), 3)


def test_noise_of_a_seed_is_that_of_its_first_sampled_image(pipeline):
    config = SamplingConfig(seed=5, latent_solver="heun3", latent_steps=4)
    z = noise_to_latents(pipeline, noise_of_seeds(pipeline, [5, 6]), Method("heun3", 4))
    torch.testing.assert_close(z[:1], pipeline.latents(torch.tensor([0]), config), rtol=0, atol=1e-5)


def test_the_ways_share_their_ends_and_report_every_frame(pipeline):
    config = SamplingConfig(latent_solver="dopri5", steps=2)
    z = encoded(pipeline, torch.rand(2, 1, 16, 16, generator=torch.manual_seed(2)) * 2 - 1)
    ends = Ends(latents_to_noise(pipeline, z, DOPRI5).noise, z)
    made = {way: frames_along(pipeline, ends, way, 3, config, batch_size=2) for way in WAYS}
    # the tolerance of dopri5 there and back, enlarged by the flow of random weights
    for way in WAYS[1:]:
        for place in (0, -1):
            torch.testing.assert_close(
                made[way].images[place], made[WAYS[0]].images[place], rtol=0, atol=0.02
            )
    norms = torch.tensor(made["w, linear"].numbers["w_norm"])
    expected = linear(ends.w, 3).flatten(1).norm(dim=1)
    torch.testing.assert_close(norms, expected)
    nll = torch.tensor(made["w, linear"].numbers["w_nll"])
    torch.testing.assert_close(nll, 0.5 * (expected.square() / 32 + math.log(2 * math.pi)))
    assert all(len(values) == 3 for one in made.values() for values in one.numbers.values())


def test_the_prior_nll_is_that_of_the_frame_under_its_prior(pipeline):
    """Without the flow's steps mattering: a frame at the prior's mean has 1/2 (logvar + log 2 pi) per dimension."""
    config = SamplingConfig(latent_solver="dopri5", temperature=0.0, solver="euler", steps=1)
    ends = Ends(noise_of_seeds(pipeline, [0, 1]), torch.zeros(2, 2, 4, 4))
    made = frames_along(pipeline, ends, "z, linear", 2, config, batch_size=8)
    start = pipeline.start_from(torch.zeros(2, dtype=torch.int64), ends.z, config)
    y = pipeline.integrate(start, config).x
    per_pixel = start.prior.logvar + (y - start.prior.mean).square() / start.prior.logvar.exp()
    expected = 0.5 * (per_pixel + math.log(2 * math.pi)).flatten(1).mean(dim=1)
    torch.testing.assert_close(torch.tensor(made.numbers["prior_nll"]), expected)


def test_an_arc_between_latents_is_refused(pipeline):
    ends = Ends(torch.zeros(2, 2, 4, 4), torch.zeros(2, 2, 4, 4))
    with pytest.raises(UserError, match="z, spherical"):
        frames_along(pipeline, ends, "z, spherical", 3, SamplingConfig(), batch_size=2)
