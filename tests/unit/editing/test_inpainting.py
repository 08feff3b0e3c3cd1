"""Eq. 7: kept pixels are on their line whenever the velocity is called, and at the file's bytes in the end."""

import pytest
import torch
from harness.edited import SIZE, tiny_pipeline

from lediflow.editing import inpainting
from lediflow.editing.codec_space import filled
from lediflow.editing.inpainting import InpaintingVelocity, inpaint, prepared
from lediflow.editing.inversion import encoded
from lediflow.errors import UserError
from lediflow.flow.solvers import SOLVERS, solve
from lediflow.sampling import SamplingConfig

AMOUNT = torch.zeros(1, 1, SIZE, SIZE)
AMOUNT[..., 4:9, 5:12] = 1


@pytest.fixture(scope="module")
def pipeline():
    return tiny_pipeline()


@pytest.fixture(scope="module")
def image():
    return torch.randint(0, 256, (1, SIZE, SIZE), dtype=torch.uint8, generator=torch.manual_seed(0))


def repainted(pipeline, image, amount, numbers, config, z_from, **options):
    task = prepared(pipeline, image, amount, config, z_from, **options)
    return inpaint(pipeline, task, numbers, config)


@pytest.mark.parametrize("solver", SOLVERS)
def test_kept_pixels_are_on_their_line_at_every_call(solver):
    generator = torch.manual_seed(1)
    x, known = torch.randn(1, 1, SIZE, SIZE, generator=generator), torch.rand(1, 1, SIZE, SIZE)
    seen = []

    def velocity(state, t):
        seen.append((state, t))
        return torch.sin(3 * state) - 4 * state * t.reshape(-1, 1, 1, 1)

    eq7 = InpaintingVelocity(velocity, x, known, AMOUNT)
    end = solve(eq7, x, solver=solver, steps=3).x
    kept = AMOUNT == 0
    assert len(seen) >= 3
    for state, t in seen:
        line = (1 - t) * x + t * known
        assert (state - line)[kept].abs().max() < 1e-5
    torch.testing.assert_close(end[kept], known[kept], rtol=0, atol=1e-5)
    assert (end - known)[~kept].abs().max() > 0.1


@pytest.mark.parametrize("times", [torch.tensor(0.25), torch.tensor([0.25, 0.5])])
def test_every_call_is_measured_with_known_and_repainted_pixels_at_one_time(times):
    x, known = torch.randn(2, 2, 1, SIZE, SIZE, generator=torch.manual_seed(1))
    eq7 = InpaintingVelocity(lambda state, t: state, x, known, AMOUNT)
    state = torch.lerp(x, known, times.expand(2).reshape(2, 1, 1, 1))
    state[1, :, AMOUNT[0, 0] == 1] += 9
    eq7(state, times)
    state[1, :, 0, 0] += 0.5
    eq7(state, times)
    assert eq7.deviations == pytest.approx([0.0, 0.5], abs=1e-6)


def test_what_dopri5_asks_before_its_first_step_is_not_measured():
    x, known = torch.randn(2, 2, 1, SIZE, SIZE, generator=torch.manual_seed(1))
    eq7 = InpaintingVelocity(lambda state, t: state * t.reshape(-1, 1, 1, 1), x, known, AMOUNT)
    made = solve(eq7, x, solver="dopri5")
    assert max(eq7.deviations) < 1e-5
    assert made.nfe - 5 < len(eq7.deviations) < made.nfe  # asked: early, late, and one pattern of two samples


@pytest.mark.parametrize("z_from", ["image", "masked", "sampler"])
@pytest.mark.parametrize(("solver", "steps"), [*((name, 1) for name in SOLVERS), ("euler", 7), ("heun3", 3)])
def test_bytes_outside_the_mask_are_those_of_the_image(pipeline, image, solver, steps, z_from):
    config = SamplingConfig(solver=solver, steps=steps)
    made = repainted(pipeline, image, AMOUNT, [0, 1], config, z_from)
    kept = (AMOUNT[0] == 0).expand_as(image)
    assert all(torch.equal(one[kept], image[kept]) for one in made.pixels)
    assert not torch.equal(made.pixels[0], made.pixels[1])
    assert made.line_error < 1e-5


def test_leaving_out_the_paste_is_refused_where_nothing_is_pasted(pipeline, image):
    with pytest.raises(UserError, match="models of pixels"):
        prepared(pipeline, image, AMOUNT, SamplingConfig(), "masked", is_pasted=False)


def test_each_picture_alone_is_that_of_the_batch(pipeline, image):
    together = repainted(pipeline, image, AMOUNT, [0, 1, 2], SamplingConfig(), "masked").pixels
    alone = repainted(pipeline, image, AMOUNT, [2], SamplingConfig(), "masked").pixels
    assert (together[2:].int() - alone.int()).abs().max() <= 1


def test_seeds_differ(pipeline, image):
    one, two = (
        repainted(pipeline, image, AMOUNT, [0], SamplingConfig(seed=seed), "masked") for seed in (0, 1)
    )
    assert not torch.equal(one.pixels, two.pixels)


@pytest.mark.parametrize(("z_from", "leaks"), [("image", True), ("masked", False), ("sampler", False)])
def test_only_z_from_image_sees_what_is_hidden(pipeline, image, z_from, leaks):
    other = torch.where(AMOUNT[0] == 1, 255 - image, image)
    pictures = [
        repainted(pipeline, one, AMOUNT, [0], SamplingConfig(), z_from).pixels for one in (image, other)
    ]
    assert torch.equal(*pictures) != leaks


def test_filling_replaces_the_hidden_part_alone():
    known, fill = torch.rand(2, 1, 3, SIZE, SIZE, generator=torch.manual_seed(0))
    assert torch.equal(filled(known, fill, AMOUNT), torch.where(AMOUNT == 1, fill, known))


def test_the_first_filling_is_the_mean_of_the_rest_and_the_next_what_z_predicts(pipeline, image, monkeypatch):
    known = image[None] / 127.5 - 1
    mean = known[AMOUNT == 0].mean()
    first = encoded(pipeline, filled(known, mean.expand_as(known), AMOUNT))
    second = encoded(pipeline, filled(known, pipeline.prior(first).mean, AMOUNT))
    for fillings, z in ((1, first), (2, second)):
        monkeypatch.setattr(inpainting, "FILLINGS", fillings)
        torch.testing.assert_close(
            inpainting.latents_of_known(pipeline, known, AMOUNT), z, rtol=1e-3, atol=1e-4
        )


def test_a_soft_mask_differs_from_a_hard_one_and_keeps_what_it_does_not_touch(pipeline, image):
    soft = AMOUNT.clone()
    soft[..., 4, 5:12] = 0.4
    hard, blurred = (
        repainted(pipeline, image, amount, [0], SamplingConfig(), "sampler").pixels
        for amount in (AMOUNT, soft)
    )
    assert not torch.equal(hard, blurred)
    kept = (soft[0] == 0).expand_as(image)
    assert torch.equal(blurred[0][kept], image[kept])
