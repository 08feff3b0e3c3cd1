"""Objectives of the stages that train a velocity; three learn from a frozen teacher, a finished run of the stage.

    velocity   flow matching: the velocity of straight paths from draws of the start to data
    reflow     the same, from draws of the start to where the teacher takes them (arXiv:2209.03003): straighter paths
    flow_map   half the velocity's loss, half the error of the mean velocity u(x, t, s) on the teacher's paths
               (lediflow/flow/maps.py)
    meanflow   for comparison: as flow_map, with MeanFlow's target in place of the paths, which needs the derivative of
               the trained model along a path

A stage with the declaration `distils` has the options of `ObjectiveConfig` and the attributes `teacher` and
`derivative`, which are set when the run is built. The teacher's paths begin at the stage's own draws, with the latent
and the class of the sample. All choices are keyed by sample.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lediflow.flow.losses import PerSample
from lediflow.flow.maps import (
    adaptive_loss,
    draw_interval,
    draw_pairs,
    draw_path_times,
    eulerian_target,
    midpoint_path,
)
from lediflow.flow.noise import Ids, SampleNoise
from lediflow.flow.path import TimeConfig, point_on_path
from lediflow.ranges import bounded
from lediflow.stages.derivatives import Inputs, PathDerivative

VELOCITY, REFLOW, FLOW_MAP, MEAN_FLOW = "velocity", "reflow", "flow_map", "meanflow"
OBJECTIVES = (VELOCITY, REFLOW, FLOW_MAP, MEAN_FLOW)
TEACHER_OPTIONS = ("teacher_steps", "teacher_pairs")  # without effect on objective=velocity
DERIVATIVE_PASSES = 2  # a derivative along a direction costs as much as two forward passes

States = Float[Tensor, " batch *dims"]


@dataclass(kw_only=True)
class ObjectiveConfig(TimeConfig):
    """What is learned, and how the teacher's paths are used."""

    # velocity | reflow | flow_map | meanflow (for comparison); the last three learn from the finished run that teacher=
    # names
    objective: str = VELOCITY
    # midpoint steps along the teacher's paths, of two calls each; more: paths closer to the teacher's ODE
    teacher_steps: int = bounded(8, at_least=1)
    # flow_map: pairs of times on each path; the first is from 0 to 1. More: better use of the teacher's calls
    teacher_pairs: int = bounded(2, at_least=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.objective not in OBJECTIVES:
            raise ValueError(
                f"stage.objective={self.objective!r} is unknown; use one of {', '.join(OBJECTIVES)}"
            )

    @property
    def has_teacher(self) -> bool:
        return self.objective != VELOCITY

    @property
    def is_map(self) -> bool:
        """Whether a flow map is trained, with a second time."""
        return self.objective in (FLOW_MAP, MEAN_FLOW)

    @property
    def needs_derivatives(self) -> bool:
        """Whether the loss contains derivatives of the trained model."""
        return self.objective == MEAN_FLOW

    @property
    def follows_paths(self) -> bool:
        """Whether the teacher's paths are followed from the prior, for which no image is needed."""
        return self.objective in (REFLOW, FLOW_MAP)

    @property
    def trained_passes(self) -> int:
        """Forward passes of the trained model for each image that have a backward pass."""
        return 1 + {FLOW_MAP: self.teacher_pairs, MEAN_FLOW: 1}.get(self.objective, 0)

    @property
    def teacher_passes(self) -> int:
        """Forward passes for each image without a backward pass, of the teacher or a model of its size."""
        if self.objective == MEAN_FLOW:
            return 1 + DERIVATIVE_PASSES
        return 2 * self.teacher_steps if self.follows_paths else 0


class Jump(NamedTuple):
    """A part of a teacher's path, from x at time t to time s, with its mean velocity."""

    x: States
    t: Float[Tensor, " batch"]
    s: Float[Tensor, " batch"]
    mean_velocity: States


class Student(Protocol):
    """What a stage has for its objective; teacher and derivative are None where it has none."""

    @property
    def config(self) -> ObjectiveConfig: ...
    @property
    def teacher(self) -> nn.Module | None: ...
    @property
    def derivative(self) -> PathDerivative | None: ...


class Targets(NamedTuple):
    """What a batch is trained on: where the straight paths end, and jumps for the mean velocity of a flow map."""

    x_1: States
    jumps: list[Jump]


class Velocities(NamedTuple):
    """What a model gives for a batch: the velocity, and the mean velocity of each jump."""

    velocity: States
    means: list[States]


@torch.no_grad()
def teacher_velocity(teacher: nn.Module, x: States, t: Float[Tensor, " batch"], inputs: Inputs) -> States:
    """The teacher's velocity. A frozen model has no dropout, so it needs no keys."""
    given = {name: value for name, value in inputs.items() if name != "dropout"}
    found: States = teacher(x, t, **given)
    return found.float()


@torch.no_grad()
def teacher_states(
    teacher: nn.Module | None, x_0: States, times: Float[Tensor, "batch times"], inputs: Inputs
) -> Float[Tensor, " times batch *dims"]:
    """States of the teacher's paths from x_0."""
    if teacher is None:
        raise RuntimeError("this objective learns from a teacher, which was not set; set `teacher`")
    return midpoint_path(lambda x, t: teacher_velocity(teacher, x, t, inputs), x_0, times)


def draw_targets(
    student: Student,
    x_0: States,
    x_1: States,
    inputs: Inputs,
    noise: SampleNoise,
    ids: Ids,
    path: tuple[States, Inputs] | None = None,
) -> Targets:
    """The targets of the student's objective, for draws x_0 and data x_1.

    `path`: where the teacher's paths of a flow map begin, and their inputs, if not x_0 and `inputs`.
    """
    config, teacher = student.config, student.teacher
    if config.objective == REFLOW:
        return Targets(teacher_ends(teacher, x_0, config.teacher_steps, inputs), [])
    if config.objective == FLOW_MAP:
        path_x_0, path_inputs = path or (x_0, inputs)
        return Targets(x_1, teacher_jumps(teacher, config, path_x_0, path_inputs, noise, ids))
    if config.objective == MEAN_FLOW:
        return Targets(x_1, [mean_flow_jump(student.derivative, teacher, x_0, x_1, inputs, noise, ids)])
    return Targets(x_1, [])


def teacher_ends(teacher: nn.Module | None, x_0: States, steps: int, inputs: Inputs) -> States:
    """Where the teacher takes x_0, by equal steps."""
    times = torch.linspace(0, 1, steps + 1, device=x_0.device).expand(len(x_0), -1)
    return teacher_states(teacher, x_0, times, inputs)[-1]


def teacher_jumps(
    teacher: nn.Module | None,
    config: ObjectiveConfig,
    x_0: States,
    inputs: Inputs,
    noise: SampleNoise,
    ids: Ids,
) -> list[Jump]:
    """Jumps along the teacher's paths; the first of each sample is the whole path."""
    times = draw_path_times(noise, ids, config.teacher_steps)
    states = teacher_states(teacher, x_0, times, inputs)
    rows, jumps = torch.arange(len(ids), device=ids.device), []
    for i, j in zip(*draw_pairs(noise, ids, config.teacher_steps, config.teacher_pairs), strict=True):
        t, s = times[rows, i], times[rows, j]
        length = (s - t).view(-1, *(1,) * (x_0.ndim - 1))
        jumps.append(Jump(states[i, rows], t, s, (states[j, rows] - states[i, rows]) / length))
    return jumps


def mean_flow_jump(
    derivative: PathDerivative | None,
    teacher: nn.Module | None,
    x_0: States,
    x_1: States,
    inputs: Inputs,
    noise: SampleNoise,
    ids: Ids,
) -> Jump:
    """A jump from a point between x_0 and x_1, with MeanFlow's target: v + (s - t) du/dt along the teacher's v."""
    if derivative is None or teacher is None:
        raise RuntimeError("this objective needs a teacher and derivatives; set `teacher` and `derivative`")
    t, s = draw_interval(noise, ids)
    x = point_on_path(x_0, x_1, t)
    v = teacher_velocity(teacher, x, t, inputs)
    return Jump(x, t, s, eulerian_target(v, derivative(x, t, s, v, inputs), t, s))


def run_model(
    module: nn.Module,
    x: States,
    t: Float[Tensor, " batch"],
    inputs: Inputs,
    jumps: list[Jump],
    path_inputs: Inputs,
) -> Velocities:
    """The velocity at x and t, and the mean velocity of each jump, by one call of the model.

    `path_inputs` are the inputs along the paths of the jumps; they differ from `inputs` where a path starts from a
    latent other than the image's.
    """
    if not jumps:
        return Velocities(module(x, t, **inputs).float(), [])
    count = 1 + len(jumps)
    repeated = {name: repeat(value, path_inputs[name], len(jumps)) for name, value in inputs.items()}
    found = module(
        torch.cat((x, *(jump.x for jump in jumps))),
        torch.cat((t, *(jump.t for jump in jumps))),
        s=torch.cat((t, *(jump.s for jump in jumps))),
        **repeated,
    )
    velocity, *means = found.float().chunk(count)
    return Velocities(velocity, means)


def repeat(value: Tensor | None, path_value: Tensor | None, times: int) -> Tensor | None:
    """An input of a batch, followed by its counterparts on the paths of several jumps; None for none."""
    return None if value is None or path_value is None else torch.cat((value, *(path_value,) * times))


def with_jumps(
    velocity_loss: PerSample,
    means: list[States],
    jumps: list[Jump],
    error: Callable[[States, States], PerSample],
) -> PerSample:
    """Half the loss of the velocity, half the adaptive loss of the jumps' errors; without jumps the former alone."""
    if not jumps:
        return velocity_loss
    errors = [error(mean, jump.mean_velocity) for mean, jump in zip(means, jumps, strict=True)]
    adaptive = [adaptive_loss(found, velocity_loss) for found in errors]
    return 0.5 * velocity_loss + 0.5 * torch.stack(adaptive).mean(0)


def map_metrics(jumps: list[Jump], means: list[States]) -> dict[str, Float[Tensor, ""]]:
    """Mean squared errors of the mean velocity: of all jumps, and of those from 0 to 1; none without jumps."""
    if not jumps:
        return {}
    errors = [(mean - jump.mean_velocity).square().mean() for jump, mean in zip(jumps, means, strict=True)]
    return {"map_mse": torch.stack(errors).mean(), "whole_jump_mse": errors[0]}
