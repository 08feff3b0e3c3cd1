"""Options of sampling: the settings that an image depends on, and how it is computed."""

from __future__ import annotations

from dataclasses import dataclass

from lediflow.flow.solvers import MOST_STEPS, check_solver
from lediflow.ranges import bounded, check_ranges, seed_field

RUNTIMES = ("auto", "eager", "compiled", "exported")
PRECISIONS = ("auto", "float32", "bfloat16")


@dataclass(kw_only=True)
class SamplingConfig:
    """Settings that an image depends on."""

    seed: int = seed_field()  # image i depends only on (weights, seed, i) and these settings
    # euler | midpoint | heun2 | heun3 | rk4 | dopri5 (adaptive, ignores steps) | jump (of a flow map, and only of one)
    solver: str = "midpoint"
    # solver steps, or jumps, of the flow; 0 (with any solver): the draws of the prior
    steps: int = bounded(2, at_least=0, at_most=MOST_STEPS)
    # factor on the prior's standard deviation; lower: smoother images
    temperature: float = bounded(1.0, at_least=0)
    latent_solver: str = "midpoint"  # solver of the latent sampler; jump if that is a flow map
    # solver steps, or jumps, of the latent sampler; 4 midpoint steps in the paper
    latent_steps: int = bounded(4, at_least=1, at_most=MOST_STEPS)
    # image i has class labels[i % len(labels)]; []: no class
    labels: list[int] = bounded(default_factory=list, at_least=0)
    # scale of classifier-free guidance; 1: none; higher: images more typical of the class, less varied
    guidance: float = bounded(1.0)

    def __post_init__(self) -> None:
        check_ranges(self)
        if self.steps != 0:
            check_solver(self.solver, self.steps)
        try:
            check_solver(self.latent_solver, self.latent_steps)
        except ValueError as error:
            raise ValueError(f"latent_solver, latent_steps: {error}") from error
        if self.guidance != 1 and not self.labels:
            raise ValueError(
                f"guidance={self.guidance} without labels: it scales the effect of a class; give labels=[...], or "
                f"leave guidance at 1"
            )


@dataclass(kw_only=True)
class SamplingOptions(SamplingConfig):
    """SamplingConfig, with batch size, device and codec."""

    batch_size: int = bounded(64, at_least=1)  # images per batch; affects speed and memory, not the images
    device: str = "auto"  # auto: the GPU if there is one
    # auto | eager | compiled (torch.compile; a minute or two at the first start) | exported (compiled once, then loaded
    # from a file). The images are equal up to rounding. auto: what is fastest for this number of images here
    runtime: str = "auto"
    # float32 | bfloat16 | auto: bfloat16 on GPUs that multiply in it, as in training, else float32
    precision: str = "auto"
    codec_path: str | None = None  # weights of the codec that encoded the data; not needed for pixels

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, known in (("runtime", RUNTIMES), ("precision", PRECISIONS)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name}={getattr(self, name)!r} is unknown; use one of {', '.join(known)}")
