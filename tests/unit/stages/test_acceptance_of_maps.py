"""A flow map of two modes, distilled by the stage's own loss: what it gains at few calls, what its velocity loses."""

import copy

import pytest
import torch

from lediflow.data.streams.batch import Batch
from lediflow.flow.noise import SampleNoise
from lediflow.flow.solvers import jump, solve
from lediflow.models import LatentSamplerSpec, LevelSpec, MappingSpec, build_model
from lediflow.stages.latent_sampler import LatentSamplerStage, LatentSamplerStageConfig

SHAPE, BATCH, NOISE = (1, 2, 2), 32, SampleNoise(0)
HELD_OUT = range(10**6, 10**6 + 256)


def batch_of(numbers):
    """Latents near 1 or near -1, all their entries alike."""
    ids = torch.tensor([*numbers])
    side = torch.where(NOISE.uniform(ids, "side") < 0.5, -1.0, 1.0)
    latents = side[:, None, None, None] + 0.3 * NOISE.normal(ids, "spread", SHAPE)
    return Batch(ids=ids, keys=[""] * len(ids), images=latents, labels=None, is_encoded=True)


def stage_of(teacher=None, **options):
    stage = LatentSamplerStage(LatentSamplerStageConfig(**options), None)
    stage.teacher = teacher
    return stage


def trained(model, stage, steps, rate):
    """The model after some steps, as the average of its last half."""
    optimizer, average = torch.optim.Adam(model.parameters(), rate), copy.deepcopy(model)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = rate * (1 - step / steps)
        loss = stage.loss(model, batch_of(range(step * BATCH, (step + 1) * BATCH)), NOISE).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            for mean, weight in zip(average.parameters(), model.parameters(), strict=True):
                mean.lerp_(weight, max(0.05, 1 / (step + 1)))
    return average.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def models():
    """A velocity, and its flow map."""
    torch.manual_seed(0)
    levels = [LevelSpec(depth=2, width=32, head_dim=16)]
    options = {"latent_channels": 1, "levels": levels, "mapping": MappingSpec(depth=1, width=32)}
    teacher = trained(build_model(LatentSamplerSpec(**options)), stage_of(), 250, 3e-3)
    student = build_model(LatentSamplerSpec(**options, is_flow_map=True))
    student.load_state_dict(teacher.state_dict())
    distilling = stage_of(teacher, objective="flow_map", teacher_steps=3)
    return teacher, trained(student, distilling, 120, 2e-3)


def held_out_loss(model):
    return float(stage_of().loss(model, batch_of(HELD_OUT), NOISE).loss)


def test_few_calls_end_nearer_to_the_teachers_paths_than_eulers_steps(models):
    """One step of Euler ends between the modes."""
    teacher, student = models
    w = NOISE.normal(torch.tensor([*HELD_OUT]), "latent noise", SHAPE)
    with torch.no_grad():
        ends = solve(teacher, w, solver="rk4", steps=16).x

        def error(x):
            return float((x - ends).square().mean())

        jumps = [error(jump(lambda x, t, s: student(x, t, s=s), w, steps=calls).x) for calls in (1, 2)]
        euler = [error(solve(teacher, w, solver="euler", steps=calls).x) for calls in (1, 2)]
    assert jumps[0] < 0.15 * euler[0]
    assert jumps[1] < 0.7 * euler[1]


def test_its_velocity_is_no_more_than_5_percent_worse(models):
    teacher, student = models
    assert held_out_loss(student) < 1.05 * held_out_loss(teacher)
