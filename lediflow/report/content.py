"""What a report is made of: plain pictures, curves and numbers, with no idea where they came from.

Pictures are uint8, height x width or height x width x channels. Empty parts leave their section out.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, UInt8

from lediflow.tracking.event_log import Curve

Picture = UInt8[np.ndarray, "height width *channels"]


@dataclass(kw_only=True)
class Fact:
    """One number of the headline and what it counts: value="2", label="evaluations per image"."""

    value: str
    label: str


@dataclass(kw_only=True)
class StepComparison:
    """The same noise turned into images by each method, with more and more steps.

    `pictures[method][row]` holds the images made with `steps[row]` steps, in the same order everywhere.
    """

    steps: list[int]
    pictures: dict[str, list[list[Picture]]]
    solver: str

    @property
    def images(self) -> int:
        """How many images a row has."""
        return max((len(row) for rows in self.pictures.values() for row in rows), default=0)


@dataclass(kw_only=True)
class PriorExample:
    """A photograph and the Gaussian that the auxiliary model would start from to draw it again.

    `sigma` is the standard deviation, positive and averaged over channels, of pixels that span [-1, 1].
    """

    photograph: Picture
    mean: Picture
    sigma: Float[np.ndarray, "height width"]
    draw: Picture
    result: Picture | None = None  # where the flow ends when it starts at the draw


@dataclass(kw_only=True)
class LossPanel:
    """One plot of training: what is shown, a caption for it, and a curve per label.

    `lowest` has, by label, the images seen where a held-out loss was lowest: a ring on that curve.
    """

    title: str
    caption: str
    curves: dict[str, Curve]
    lowest: dict[str, int] = field(default_factory=dict)


@dataclass(kw_only=True)
class BinPanel:
    """One plot of where in a batch the loss comes from: for each label a mean by bin, nan where a bin is empty.

    Bins lie between neighbours of `edges`; with `is_doubling` these double, and the plot shows them at equal distances.
    """

    title: str
    caption: str
    axis: str  # what the bins divide
    edges: Sequence[float]
    means: dict[str, Float[np.ndarray, " bins"]]
    is_doubling: bool = False


@dataclass(kw_only=True)
class Measurement:
    """What one way of sampling costs and how good its images are."""

    method: str
    solver: str
    steps: int
    evaluations: int  # of the flow model, per image
    ms_per_image: float | None = None
    mmd: float | None = None
    mmd_margin: float | None = None  # half of its 95 % interval
    mmd_to_reconstructions: float | None = None  # of latents: against what the codec makes of the photographs
    frechet: float | None = None
    precision: float | None = None  # shares of samples among photographs, and of photographs among samples
    recall: float | None = None


@dataclass(kw_only=True)
class StageComparison:
    """Results of `mode=stages`: the source of z is each measurement's method."""

    heading: str
    text: str  # the verdict and the measurements that show it
    measurements: list[Measurement]
    mmd_name: str
    real_mmd: float | None = None  # between two sets of photographs
    codec_floor: float | None = None  # the codec's reconstructions against the photographs


def methods(measurements: Sequence[Measurement]) -> list[str]:
    """Each method once, in the order in which they get the page's colours."""
    return list(dict.fromkeys(row.method for row in measurements))


@dataclass(kw_only=True)
class CommandRun:
    """A command that took part in making the report."""

    purpose: str
    command: str
    seconds: float | None = None
    peak_memory_mib: float | None = None  # of the process, at its largest


@dataclass(kw_only=True)
class ReportData:
    """Everything the page shows. The first method of `measurements` is the one the report is about."""

    title: str
    lead: str  # two or three sentences: what was trained, on what, and what came out
    facts: list[Fact] = field(default_factory=list)
    samples: list[Picture] = field(default_factory=list)
    photographs: list[Picture] = field(default_factory=list)
    photographs_caption: str = "Photographs."
    step_comparison: StepComparison | None = None
    measurements: list[Measurement] = field(default_factory=list)
    mmd_name: str = "MMD"
    codec_floor: float | None = None  # the codec's reconstructions against the photographs
    frechet_name: str = "Fréchet distance"
    real_mmd: float | None = None  # between two sets of photographs: what no model needs to beat
    stages: StageComparison | None = None
    images_measured: int = 0  # generated images behind each row of the measurements
    priors: list[PriorExample] = field(default_factory=list)
    panels: list[LossPanel] = field(default_factory=list)
    bin_panels: list[BinPanel] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    commands: list[CommandRun] = field(default_factory=list)
