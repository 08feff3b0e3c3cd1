"""The content of a report as plain pictures, curves and numbers, independent of run folders and of HTML.

Pictures are uint8, height x width or height x width x channels. A section whose part is empty is left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, UInt8

from lediflow.report.charts import Chart
from lediflow.report.edits import ShownEdit
from lediflow.report.pictures import RunPictures
from lediflow.report.timeline import Timeline
from lediflow.tracking.event_log import Curve

Picture = UInt8[np.ndarray, "height width *channels"]


@dataclass(kw_only=True)
class Fact:
    """One number of the headline and what it is: value="2", label="evaluations per image"."""

    value: str
    label: str
    margin: str = ""  # shown small after the value
    series: int = 1  # which of the page's colours marks it


@dataclass(kw_only=True)
class StepComparison:
    """Images that each method makes from the same noise, with more and more steps.

    `pictures[method][row]` holds the images made with `steps[row]` steps, in the same order everywhere.
    """

    steps: list[int]
    pictures: dict[str, list[list[Picture]]]
    solver: str

    @property
    def images(self) -> int:
        """Number of images in a row."""
        return max((len(row) for rows in self.pictures.values() for row in rows), default=0)


@dataclass(kw_only=True)
class PriorExample:
    """A photograph and the learned prior that the auxiliary model decodes from its latent.

    `sigma` is the standard deviation, positive and averaged over channels, of pixels that span [-1, 1].
    """

    photograph: Picture
    mean: Picture
    sigma: Float[np.ndarray, "height width"]
    draw: Picture
    result: Picture | None = None  # where the flow ends when it starts at the draw


@dataclass(kw_only=True)
class LossPanel:
    """One plot of training: a title, a caption, and a curve per label.

    `lowest` maps a label to the images seen where its held-out loss was lowest; the plot has a ring there.
    """

    title: str
    caption: str
    curves: dict[str, Curve]
    lowest: dict[str, int] = field(default_factory=dict)
    compares_methods: bool = False  # labels are methods
    methods: Sequence[str] = ()  # all methods of the page, in the order of its colours


@dataclass(kw_only=True)
class BinPanel:
    """One plot of a loss divided into bins: for each label a mean per bin, NaN where a bin is empty.

    Bins lie between consecutive `edges`. `is_doubling`: each edge is twice the one before, and the axis is logarithmic.
    """

    title: str
    caption: str
    axis: str  # label of the axis that the bins divide
    edges: Sequence[float]
    means: dict[str, Float[np.ndarray, " bins"]]
    is_doubling: bool = False
    methods: Sequence[str] = ()  # as in LossPanel


@dataclass(kw_only=True)
class SettingMeasurement:
    """Cost and quality of one way of sampling."""

    method: str
    solver: str
    steps: int
    evaluations: int  # of the flow model per image
    temperature: float = 1.0  # of the prior
    classes: str = ""  # `, labels 4, guidance 2`; empty without classes
    ms_per_image: float | None = None
    mmd: float | None = None
    mmd_margin: float | None = None  # half of its 95 % interval
    # with latents: distance to the codec's reconstructions of the photographs instead of the photographs
    mmd_to_reconstructions: float | None = None
    # the other metrics of `evaluation.metrics`, by key
    metrics: dict[str, float] = field(default_factory=dict)


@dataclass(kw_only=True)
class StageComparison:
    """Results of `mode=stages`; the method of a measurement is the source of z."""

    heading: str
    text: str  # the verdict and the measurements that show it
    measurements: list[SettingMeasurement]
    mmd_name: str
    real_mmd: float | None = None  # between two sets of photographs
    codec_floor: float | None = None  # the codec's reconstructions against the photographs


def temperature_text(measurement: SettingMeasurement) -> str:
    """A temperature other than 1, and classes, as an addition to a label."""
    tempered = "" if measurement.temperature == 1 else f", temperature {measurement.temperature:g}"
    return tempered + measurement.classes


def methods(measurements: Sequence[SettingMeasurement]) -> list[str]:
    """Each method once, in the order of the page's colours."""
    return list(dict.fromkeys(row.method for row in measurements))


@dataclass(kw_only=True)
class ChartGroup:
    """The interactive curves of all numbers that the runs of a stage logged."""

    title: str
    runs: list[str]
    charts: list[Chart]


@dataclass(kw_only=True)
class RunRow:
    """A run in the table of runs: its name, and texts by column; missing ones are dashes."""

    name: str
    cells: dict[str, str]


@dataclass(kw_only=True)
class Configuration:
    """The options of the runs of one stage.

    `differing` maps an option to its value in each of `runs`, None where a run does not have it. `options` has all
    options of each run.
    """

    title: str
    runs: list[str]
    differing: dict[str, list[str | None]]
    options: list[dict[str, str]]


@dataclass(kw_only=True)
class CommandRun:
    """A command that contributed to the report."""

    purpose: str
    command: str
    seconds: float | None = None
    peak_memory_mib: float | None = None  # largest resident memory of the process


@dataclass(kw_only=True)
class ReportData:
    """Everything the page shows. The report is about the first method of `measurements`."""

    title: str
    lead: str  # two or three sentences: what was trained, on what, and what came out
    facts: list[Fact] = field(default_factory=list)
    samples: list[Picture] = field(default_factory=list)
    photographs: list[Picture] = field(default_factory=list)
    photographs_caption: str = "Photographs."
    step_comparison: StepComparison | None = None
    measurements: list[SettingMeasurement] = field(default_factory=list)
    mmd_name: str = "MMD"
    codec_floor: float | None = None  # the codec's reconstructions against the photographs
    # by key, with the features they are computed on
    metric_names: dict[str, str] = field(default_factory=dict)
    real_mmd: float | None = None  # between two sets of photographs: what no model needs to beat
    # a sentence for each run whose rows were measured otherwise than those of the first, and are not shown
    left_out: list[str] = field(default_factory=list)
    stages: StageComparison | None = None
    edits: list[ShownEdit] = field(default_factory=list)
    images_measured: int = 0  # generated images behind each row of the measurements
    priors: list[PriorExample] = field(default_factory=list)
    panels: list[LossPanel] = field(default_factory=list)
    bin_panels: list[BinPanel] = field(default_factory=list)
    training_pictures: list[RunPictures] = field(default_factory=list)
    chart_groups: list[ChartGroup] = field(default_factory=list)
    runs: list[RunRow] = field(default_factory=list)
    timelines: list[Timeline] = field(default_factory=list)
    configurations: list[Configuration] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    commands: list[CommandRun] = field(default_factory=list)
    are_all_commands: bool = True  # whether `commands` made everything; otherwise they only trained the runs
