"""Objectives of the stages that train a velocity; two of them learn from a frozen teacher, a finished run of the stage.

    velocity   flow matching: the velocity of straight paths from draws of the start to data
    reflow     the same, from draws of the start to where the teacher takes them (arXiv:2209.03003): straighter paths
    flow_map   half the velocity's loss, half the error of the mean velocity u(x, t, s) on the teacher's paths
               (lediflow/flow/maps.py)

A stage with the declaration `distils` has the options of `ObjectiveConfig` and an attribute `teacher`, which is set
when the run is built. The teacher's paths begin at the stage's own draws, with the latent and the class of the sample.
All choices are keyed by sample.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lediflow.flow.losses import PerSample
from lediflow.flow.maps import adaptive_loss, draw_pairs, draw_path_times, midpoint_path
from lediflow.flow.noise import Ids, SampleNoise
from lediflow.flow.path import TimeConfig
from lediflow.ranges import bounded

VELOCITY, REFLOW, FLOW_MAP = "velocity", "reflow", "flow_map"
OBJECTIVES = (VELOCITY, REFLOW, FLOW_MAP)
TEACHER_OPTIONS = ("teacher_steps", "teacher_pairs")  # without effect on objective=velocity

States = Float[Tensor, " batch *dims"]
Inputs = Mapping[str, Tensor | None]  # of a network besides x and times, by name; None for none


@dataclass(kw_only=True)
class ObjectiveConfig(TimeConfig):
    """What is learned, and how the teacher's paths are used."""

    # velocity | reflow | flow_map; the last two learn from the finished run that teacher= names
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
    def trained_passes(self) -> int:
        """Forward passes of the trained model for each image."""
        return 1 + self.teacher_pairs if self.objective == FLOW_MAP else 1

    @property
    def teacher_passes(self) -> int:
        """Forward passes of the teacher for each image."""
        return 2 * self.teacher_steps if self.has_teacher else 0


class Jump(NamedTuple):
    """A part of a teacher's path, from x at time t to time s, with its mean velocity."""

    x: States
    t: Float[Tensor, " batch"]
    s: Float[Tensor, " batch"]
    mean_velocity: States


class Velocities(NamedTuple):
    """What a model gives for a batch: the velocity, and the mean velocity of each jump."""

    velocity: States
    means: list[States]


@torch.no_grad()
def teacher_states(
    teacher: nn.Module | None, x_0: States, times: Float[Tensor, "batch times"], inputs: Inputs
) -> Float[Tensor, " times batch *dims"]:
    """States of the teacher's paths from x_0. A frozen model has no dropout, so it needs no keys."""
    if teacher is None:
        raise RuntimeError("this objective learns from a teacher, which was not set; set `teacher`")
    given = {name: value for name, value in inputs.items() if name != "dropout"}
    return midpoint_path(lambda x, t: teacher(x, t, **given).float(), x_0, times)


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


def flow_map_loss(velocity_loss: PerSample, errors: list[PerSample]) -> PerSample:
    """Half the loss of the velocity, half the adaptive loss of the jumps, whose errors are given."""
    adaptive = [adaptive_loss(error, velocity_loss) for error in errors]
    return 0.5 * velocity_loss + 0.5 * torch.stack(adaptive).mean(0)


def map_metrics(jumps: list[Jump], means: list[States]) -> dict[str, Float[Tensor, ""]]:
    """Mean squared errors of the mean velocity: of all jumps, and of those from 0 to 1; none without jumps."""
    if not jumps:
        return {}
    errors = [(mean - jump.mean_velocity).square().mean() for jump, mean in zip(jumps, means, strict=True)]
    return {"map_mse": torch.stack(errors).mean(), "whole_jump_mse": errors[0]}
