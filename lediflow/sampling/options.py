"""Options of sampling: the settings that an image depends on, and how it is computed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from lediflow.flow.solvers import JUMP, MOST_STEPS, check_solver
from lediflow.models.specs import LATENT_JUMPS, LATENT_STEPS
from lediflow.ranges import bounded, check_ranges, seed_field
from lediflow.sampling.classes import check_entries

RUNTIMES = ("auto", "eager", "compiled", "exported")
PRECISIONS = ("float32", "bfloat16", "float8")
# of solver and latent_solver: what a model is run with by default
AUTO = "auto"
MIDPOINT = "midpoint"  # a velocity


def batches(count: int, size: int) -> list[range]:
    """The numbers 0 ... count - 1 in batches of `size`; the last may be smaller."""
    return [range(first, min(first + size, count)) for first in range(0, count, size)]


class Method(NamedTuple):
    """How a model is run: a solver and its steps, or jumps of a flow map."""

    solver: str
    steps: int

    def __str__(self) -> str:
        return f"{self.solver} {self.steps}"


@dataclass(kw_only=True)
class SamplingConfig:
    """Settings that an image depends on."""

    seed: int = seed_field()  # image i depends only on (weights, seed, i) and these settings
    # euler | midpoint | heun2 | heun3 | rk4 | dopri5 (adaptive, ignores steps) | jump (of a flow map, and only of one)
    # | auto: midpoint, or jump of a flow map
    solver: str = AUTO
    # solver steps, or jumps, of the flow; 0 (with any solver): the draws of the prior
    steps: int = bounded(2, at_least=0, at_most=MOST_STEPS)
    # factor on the prior's standard deviation; lower: smoother images
    temperature: float = bounded(1.0, at_least=0)
    latent_solver: str = AUTO  # solver of the latent sampler, like solver
    # solver steps, or jumps, of the latent sampler; null: 4 steps, as in the paper, or 1 jump of a flow map
    latent_steps: int | None = bounded(None, at_least=1, at_most=MOST_STEPS)
    # numbers or names of classes: image i has class labels[i % len(labels)]; []: no class
    labels: list[int | str] = field(default_factory=list)
    # scale of classifier-free guidance of the flow; 1: none; higher: images more typical of the class, less varied
    guidance: float = bounded(1.0)
    latent_guidance: float = bounded(1.0)  # the same for the latent sampler

    def __post_init__(self) -> None:
        check_ranges(self)
        check_entries(self.labels)
        if self.steps != 0 and self.solver != AUTO:
            check_solver(self.solver, self.steps)
        try:
            if self.latent_solver != AUTO:
                check_solver(self.latent_solver, self.latent_steps or LATENT_STEPS)
        except ValueError as error:
            raise ValueError(f"latent_solver, latent_steps: {error}") from error
        for name in ("guidance", "latent_guidance"):
            if (scale := getattr(self, name)) != 1 and not self.labels:
                raise ValueError(
                    f"{name}={scale} without labels: it scales the effect of a class; give labels=[...], or leave "
                    f"{name} at 1"
                )

    def method(self, is_flow_map: bool) -> Method:
        """How the flow is run."""
        return Method(chosen_solver(self.solver, is_flow_map), self.steps)

    def latent_method(self, is_flow_map: bool) -> Method:
        """How the latent sampler is run."""
        steps = self.latent_steps or (LATENT_JUMPS if is_flow_map else LATENT_STEPS)
        return Method(chosen_solver(self.latent_solver, is_flow_map), steps)


def chosen_solver(asked: str, is_flow_map: bool) -> str:
    """The solver asked for; `auto` is midpoint for a velocity, and jumps for a flow map."""
    if asked != AUTO:
        return asked
    return JUMP if is_flow_map else MIDPOINT


@dataclass(kw_only=True)
class SamplingOptions(SamplingConfig):
    """SamplingConfig, with batch size, device and codec."""

    batch_size: int = bounded(64, at_least=1)  # images per batch; affects speed and memory, not the images
    device: str = "auto"  # auto: the GPU if there is one
    # auto | eager | compiled (torch.compile; a minute or two at the first start) | exported (compiled once, then loaded
    # from a file). The images are equal up to rounding. auto: what is fastest for this number of images here
    runtime: str = "auto"
    # float32 | bfloat16: several times as fast on GPUs; images of few evaluations may be a little worse | float8: large
    # layers in 8 bits, compiled, on Ada, Hopper and newer GPUs; faster in large batches
    precision: str = "float32"
    codec_path: str | None = None  # weights of the codec that encoded the data; not needed for pixels

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, known in (("runtime", RUNTIMES), ("precision", PRECISIONS)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name}={getattr(self, name)!r} is unknown; use one of {', '.join(known)}")
