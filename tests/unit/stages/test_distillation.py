"""Flow maps and reflow: what a student learns from a frozen teacher, written out by hand."""

import copy
from dataclasses import replace

import pytest
import torch
from harness.drawn_models import drawn_model

from lediflow.flow.maps import adaptive_loss, draw_interval, draw_pairs, draw_path_times, midpoint_path
from lediflow.models import LevelSpec, build_model
from lediflow.nn.forward_mode import derivative
from lediflow.stages import derivatives
from lediflow.stages.derivatives import PathDerivative
from lediflow.stages.flow import FlowStage, FlowStageConfig, Given
from lediflow.stages.latent_sampler import LatentSamplerStage, LatentSamplerStageConfig

LATENT = (2, 4, 4)
MAP = {"objective": "flow_map", "teacher_steps": 3, "teacher_pairs": 3}


def deeper(model, seed):
    """A model of the same kind with two layers, drawn, and the flow map with its weights."""
    spec = replace(model.spec, levels=[LevelSpec(depth=2, width=16, head_dim=8)])
    teacher, student = drawn_model(spec, seed), build_model(replace(spec, is_flow_map=True))
    student.load_state_dict(teacher.state_dict())
    return teacher.eval().requires_grad_(False), student


@pytest.fixture(scope="module")
def flows(velocity):
    return deeper(velocity, 6)


@pytest.fixture(scope="module")
def samplers(sampler):
    return deeper(sampler, 7)


def flow_stage(auxiliary, teacher, **options):
    stage = FlowStage(FlowStageConfig(prior_widening=0.3, **options), auxiliary)
    stage.teacher = teacher
    return stage


def sampler_stage(auxiliary, teacher, **options):
    stage = LatentSamplerStage(LatentSamplerStageConfig(**options), auxiliary)
    stage.teacher = teacher
    return stage


def test_the_loss_of_a_flow_map_is_half_eq_2_and_half_the_error_on_the_teachers_paths(
    auxiliary, samplers, batch, noise, latents
):
    teacher, student = samplers
    ids = batch.ids
    t, w = noise.uniform(ids, "time"), noise.normal(ids, "latent noise", LATENT)
    align = t[:, None, None, None]
    times = draw_path_times(noise, ids, 3)
    with torch.no_grad():
        error = student((1 - align) * w + align * latents, t) - (latents - w)
        velocity_loss = error.square().mean((1, 2, 3))
        states, found = midpoint_path(teacher, w, times), []
        for i, j in zip(*draw_pairs(noise, ids, 3, 3), strict=True):
            for row, (a, b) in enumerate(zip(i.tolist(), j.tolist(), strict=True)):
                start, end = times[row, a], times[row, b]
                mean = (states[b, row] - states[a, row]) / (end - start)
                found.append((student(states[a, row][None], start, s=end)[0] - mean).square().mean())
    errors = torch.stack(found).view(3, 4)
    expected = 0.5 * velocity_loss + 0.5 * adaptive_loss(errors, velocity_loss).mean(0)
    stage = sampler_stage(auxiliary, teacher, **MAP)
    loss, metrics, per_sample, _ = stage.loss(student, batch, noise)
    torch.testing.assert_close(per_sample, expected)
    torch.testing.assert_close(loss, expected.mean())
    torch.testing.assert_close(metrics["velocity_mse"], velocity_loss.mean())
    torch.testing.assert_close(metrics["map_mse"], errors.mean())
    torch.testing.assert_close(metrics["whole_jump_mse"], errors[0].mean())


def test_at_the_first_step_a_flow_maps_velocity_is_its_teachers(auxiliary, flows, batch, noise):
    teacher, student = flows
    as_map = flow_stage(auxiliary, teacher, **MAP).loss(student, batch, noise)
    plain = flow_stage(auxiliary, None).loss(teacher, batch, noise)
    for name in ("velocity_mse", "prior_sigma"):
        torch.testing.assert_close(as_map.metrics[name], plain.metrics[name])
    torch.testing.assert_close(as_map.bins["loss_by_sigma"], plain.bins["loss_by_sigma"])


def test_a_flow_is_taught_on_paths_from_its_prior_with_its_latents_and_weights(
    auxiliary, flows, batch, noise, latents
):
    """Seen by the teacher's inputs; with a teacher that stands still the mean velocity of a student is its error."""
    _, student = flows
    seen = []

    def still(x, t, **given):
        seen.append((x, given))
        return torch.zeros_like(x)

    stage = flow_stage(auxiliary, still, **MAP, exponent=2.0, cap=3.0)
    loss = stage.loss(student, batch, noise)
    with torch.no_grad():
        mean, logvar = auxiliary.decode(latents)
        variance = logvar.exp() + 0.3**2
        x_0 = mean + variance.sqrt() * noise.normal(batch.ids, "prior", (1, 8, 8))
    assert len(seen) == 2 * 3
    torch.testing.assert_close(seen[0][0], x_0)
    torch.testing.assert_close(seen[0][1]["z"], latents)
    with torch.no_grad():
        whole = student(x_0, 0.0, latents, s=1.0)
    torch.testing.assert_close(loss.metrics["whole_jump_mse"], whole.square().mean())


@pytest.mark.parametrize("kind", ["flow", "sampler"])
def test_reflow_goes_straight_to_where_the_teacher_arrives(kind, request, auxiliary, batch, noise):
    """A teacher that moves by 0.5 in any state: a model that says so has no loss, whatever the images are."""
    build = flow_stage if kind == "flow" else sampler_stage
    stage = build(
        auxiliary, lambda x, t, **given: torch.full_like(x, 0.5), objective="reflow", teacher_steps=2
    )

    def straight(x, t, **given):
        return torch.full_like(x, 0.5).requires_grad_()

    assert stage.loss(straight, batch, noise).loss.item() == pytest.approx(0, abs=1e-10)


def test_the_draws_of_a_sample_do_not_depend_on_its_batch(auxiliary, flows, batch, noise, one_by_one):
    teacher, student = flows
    stage = flow_stage(auxiliary, teacher, **MAP)
    whole = stage.loss(student, batch, noise).per_sample
    parts = [stage.loss(student, single, noise).per_sample for single in one_by_one(batch)]
    torch.testing.assert_close(torch.cat(parts), whole)


def test_the_student_gets_all_gradients_and_the_teacher_none(auxiliary, flows, batch, noise):
    teacher, student = flows
    student = copy.deepcopy(student).train()
    flow_stage(auxiliary, teacher, **MAP).loss(student, batch, noise).loss.backward()
    assert all(weight.grad is not None for weight in student.parameters())
    assert all(weight.grad is None for weight in teacher.parameters())


@pytest.fixture(params=[False, True], ids=["velocity", "map"])
def source(request, sampler):
    """A latent sampler with its latents by hand: of four midpoint steps, or of one jump."""
    velocity, flow_map = deeper(sampler, 7)
    model = flow_map.eval().requires_grad_(False) if request.param else velocity

    @torch.no_grad()
    def latents(noise, ids):
        w = noise.normal(ids, "sampled latents", LATENT)
        if request.param:
            return w + model(w, 0.0, s=1.0)
        for k in range(4):
            w = w + model(w + model(w, k / 4) / 8, (k + 0.5) / 4) / 4
        return w

    return model, latents


def starts_of(auxiliary, z, batch, noise):
    """Draws of the widened prior of latents."""
    with torch.no_grad():
        mean, logvar = auxiliary.decode(z)
    return mean + (logvar.exp() + 0.3**2).sqrt() * noise.normal(batch.ids, "prior", (1, 8, 8))


@pytest.mark.parametrize("share", [0.0, 0.8, 1.0])
def test_a_share_of_the_paths_starts_from_latents_of_the_sampler(
    auxiliary, flows, source, batch, noise, latents, share
):
    """Seen by the inputs of the teacher; the velocity is learned on the images' own latents all the same."""
    _, student = flows
    sampler, drawn = source
    seen = []

    def still(x, t, **given):
        seen.append((x, given))
        return torch.zeros_like(x)

    stage = flow_stage(auxiliary, still, **MAP, sampled_share=share)
    plain = stage.loss(student, batch, noise).metrics["velocity_mse"]
    stage.latent_sampler = sampler
    torch.testing.assert_close(stage.loss(student, batch, noise).metrics["velocity_mse"], plain)
    x, given = seen[-1]
    is_drawn = noise.uniform(batch.ids, "sampled share") < share
    expected = torch.where(is_drawn[:, None, None, None], drawn(noise, batch.ids), latents)
    torch.testing.assert_close(given["z"], expected)
    torch.testing.assert_close(x, starts_of(auxiliary, expected, batch, noise))


def test_a_sampled_latent_has_the_weights_of_its_own_prior(auxiliary, flows, source, batch, noise):
    _, student = flows
    stage = flow_stage(auxiliary, lambda x, t, **given: torch.zeros_like(x), **MAP, sampled_share=1.0)
    stage.latent_sampler, drawn = source
    z = drawn(noise, batch.ids)
    x_0 = starts_of(auxiliary, z, batch, noise)
    with torch.no_grad():
        logvar = (auxiliary.decode(z).logvar.exp() + 0.3**2).log()
        weights = torch.exp(-0.5 * logvar).clamp(max=10)
        wrong = student(x_0, 0.0, z, s=1.0).square()
    seen = []
    weighted = stage._weighted
    stage._weighted = lambda *given: seen.append(weighted(*given)) or seen[-1]
    stage.loss(student, batch, noise)
    torch.testing.assert_close(seen[1], (weights * wrong).mean((1, 2, 3)))  # of the first jump, from 0 to 1


def test_reflow_goes_from_the_samplers_latents_to_where_the_teacher_takes_them(
    auxiliary, flows, source, batch, noise
):
    stage = flow_stage(
        auxiliary,
        lambda x, t, **given: torch.full_like(x, 0.5),
        objective="reflow",
        teacher_steps=2,
        sampled_share=1.0,
    )
    stage.latent_sampler, drawn = source
    seen = []

    def straight(x, t, **given):
        seen.append((x, t, given["z"]))
        return torch.full_like(x, 0.5).requires_grad_()

    assert stage.loss(straight, batch, noise).loss.item() == pytest.approx(0, abs=1e-10)
    ((x, t, z),) = seen
    expected = drawn(noise, batch.ids)
    torch.testing.assert_close(z, expected)
    torch.testing.assert_close(x, starts_of(auxiliary, expected, batch, noise) + 0.5 * t[:, None, None, None])


def test_sampled_latents_are_of_images_that_are_not_augmented(auxiliary, flows, source, batch, noise):
    stage = flow_stage(auxiliary, flows[0], **MAP, sampled_share=0.8)
    stage.latent_sampler, _ = source
    given = stage._with_sampled(Given(torch.zeros(4, *LATENT), torch.ones(4, 9)), None, batch, noise)
    is_drawn = given.z.flatten(1).any(1)
    assert 0 < is_drawn.sum() < 4
    assert given.augmentation[is_drawn].eq(0).all() and given.augmentation[~is_drawn].eq(1).all()


def test_the_draws_of_a_sample_with_a_sampler_do_not_depend_on_its_batch(
    auxiliary, flows, source, batch, noise, one_by_one
):
    teacher, student = flows
    stage = flow_stage(auxiliary, teacher, **MAP, sampled_share=0.8)
    stage.latent_sampler, _ = source
    whole = stage.loss(student, batch, noise).per_sample
    parts = [stage.loss(student, single, noise).per_sample for single in one_by_one(batch)]
    # products of a batch round otherwise than those of one sample, in some 20 calls of models one after the other
    torch.testing.assert_close(torch.cat(parts), whole, rtol=1e-4, atol=0)


def test_a_teacher_that_was_not_set_is_missed(auxiliary, flows, batch, noise):
    with pytest.raises(RuntimeError, match="learns from a teacher, which was not set"):
        flow_stage(auxiliary, None, **MAP).loss(flows[1], batch, noise)


def test_an_unknown_objective_is_refused():
    with pytest.raises(ValueError, match=r"stage.objective='maps' is unknown; use one of velocity, reflow"):
        FlowStageConfig(objective="maps")


def mean_flow(build, auxiliary, teacher, student):
    stage = build(auxiliary, teacher, objective="meanflow")
    stage.derivative = PathDerivative(student)
    return stage


def test_meanflow_learns_its_target_at_points_between_draws_and_data(
    auxiliary, samplers, batch, noise, latents
):
    teacher, student = samplers
    w, (t, s) = noise.normal(batch.ids, "latent noise", LATENT), draw_interval(noise, batch.ids)
    align = t[:, None, None, None]
    x = (1 - align) * w + align * latents
    with torch.no_grad():
        v, step = teacher(x, t), 3e-4
        ahead, behind = (student(x + sign * step * v, t + sign * step, s=s) for sign in (1, -1))
        target = v + (s - t)[:, None, None, None] * (ahead - behind) / (2 * step)
        error = (student(x, t, s=s) - target).square().mean((1, 2, 3))
    found = mean_flow(sampler_stage, auxiliary, teacher, student).loss(student, batch, noise)
    # a difference in float32, of functions whose features of time turn fast
    torch.testing.assert_close(found.metrics["map_mse"], error.mean(), rtol=1e-2, atol=0)
    velocity_loss = sampler_stage(auxiliary, None).loss(teacher, batch, noise).per_sample
    expected = 0.5 * velocity_loss + 0.5 * adaptive_loss(error, velocity_loss)
    torch.testing.assert_close(found.per_sample, expected, rtol=1e-2, atol=0)


def test_the_target_of_meanflow_has_no_gradient(auxiliary, flows, batch, noise):
    """The derivative's model gets none; the module that is called, here a copy of it, gets all."""
    teacher, student = flows
    module = copy.deepcopy(student)
    mean_flow(flow_stage, auxiliary, teacher, student).loss(module, batch, noise).loss.backward()
    assert all(weight.grad is not None for weight in module.parameters())
    assert all(weight.grad is None for weight in (*student.parameters(), *teacher.parameters()))


def test_a_derivative_that_is_lost_is_noticed(flows, samplers, monkeypatch):
    """As by PyTorch, which leaves out tangents of operations without a forward mode: here, of one of two inputs."""
    flow, sampler = (copy.deepcopy(student).double() for _, student in (flows, samplers))
    path_derivative, inputs = PathDerivative(flow), {"z": torch.ones(2, *LATENT).double()}
    path_derivative.check((2, 1, 8, 8), inputs)
    PathDerivative(sampler).check((2, *LATENT), {})

    def lossy(function, at, directions):
        return derivative(function, at, (directions[0], 0 * directions[1]))

    monkeypatch.setattr(derivatives, "derivative", lossy)
    with pytest.raises(RuntimeError, match=r"loses tangents on the way; use stage\.objective=flow_map"):
        path_derivative.check((2, 1, 8, 8), inputs)


def test_the_derivative_of_a_model_in_bfloat16_is_the_one_in_float32_rounded(auxiliary, flows, batch, noise):
    teacher, student = flows
    stage = mean_flow(flow_stage, auxiliary, teacher, copy.deepcopy(student).bfloat16())
    exact = mean_flow(flow_stage, auxiliary, teacher, student)
    found = [each.loss(student, batch, noise).metrics["map_mse"] for each in (stage, exact)]
    torch.testing.assert_close(*found, rtol=0.1, atol=0)


def test_meanflow_needs_the_trained_model(auxiliary, flows, batch, noise):
    with pytest.raises(RuntimeError, match="needs a teacher and derivatives"):
        flow_stage(auxiliary, flows[0], objective="meanflow").loss(flows[1], batch, noise)
