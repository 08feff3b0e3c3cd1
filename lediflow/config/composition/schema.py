"""Options of every command: one dataclass per command, composed of the dataclasses of the objects it builds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from lediflow.cluster.jobs import SlurmConfig
from lediflow.data.encode import EncodeConfig
from lediflow.data.prepare import PrepareConfig
from lediflow.data.streams.config import DataConfig
from lediflow.editing.anonymisation.config import AnonymiseConfig, AnonymityConfig
from lediflow.editing.config import AttributeConfig, InpaintConfig, InterpolateConfig, VaryConfig
from lediflow.engine.hang_detection import WatchdogConfig
from lediflow.engine.protocol import EngineConfig
from lediflow.engine.stop import StopConfig
from lediflow.evaluation.config import EvaluateConfig
from lediflow.models.specs import AuxiliarySpec, LatentSamplerSpec, VelocitySpec
from lediflow.ranges import bounded, seed_field
from lediflow.sampling import SamplingOptions
from lediflow.sampling.folder import MOST_IMAGES
from lediflow.stages import STAGES
from lediflow.tracking.tracker import TrackingConfig
from lediflow.training.config import TrainingConfig

PRIORS = ("learned", "gaussian")
STORED_TYPES = ("float32", "float16", "bfloat16")  # of parameters, by lediflow.export


def stage_options() -> tuple[type, ...]:
    """The dataclasses of the options of all stages in the table."""
    return tuple(kind.options for kind in STAGES.values())


@dataclass(kw_only=True)
class ModelConfig:
    """Image size and the three models; a stage trains one of them."""

    # side length of the models' input: of images, or of the codec's latents
    image_size: int = bounded(MISSING, at_least=1)
    channels: int = bounded(MISSING, at_least=1)  # channels of the models' input
    auxiliary: AuxiliarySpec = MISSING
    velocity: VelocitySpec = MISSING
    latent_sampler: LatentSamplerSpec = MISSING


@dataclass(kw_only=True)
class PathsConfig:
    runs: str = "runs"  # folder for run folders without an explicit path


@dataclass(kw_only=True)
class TrainCommand:
    """`python -m lediflow.train`."""

    name: str = MISSING  # name of the experiment, part of the default run folder
    run: str = MISSING  # run folder; if it holds an unfinished run, the run is continued
    seed: int = seed_field()  # seed of the initial weights, the order of samples and every random draw
    prior: str = "learned"  # learned: LeDiFlow | gaussian: the flow-matching baseline (flow stage only)
    parent: str | None = None  # run folder of the auxiliary model that flow and latent_sampler need
    other_data: bool = False  # accept a parent that was trained on data other than data.path
    # run or export folder with the initial weights of the model; null: random weights
    warm_start: str | None = None
    # run folder of the finished run that stage.objective=reflow, flow_map and meanflow learn from
    teacher: str | None = None
    # stage=flow with a teacher: run folder of the latent sampler whose latents stage.sampled_share of its paths start
    # from; null: all start from latents of the images
    sampler: str | None = None
    # first draw this many toy pictures into data.path (for smoke tests)
    synthetic_images: int = bounded(0, at_least=0)
    # print the memory, disk space and time that the run needs, and start nothing; also --dry-run
    dry_run: bool = False
    # a dry run also prints a table for 1 to this many machines; 0: no table
    nodes: int = bounded(0, at_least=0)
    # number of processes that a dry run assumes; 0: as many as were started
    dry_run_ranks: int = bounded(0, at_least=0)
    # auxiliary | flow | latent_sampler; each has options of its own
    stage: Any = field(default=MISSING, metadata={"types": stage_options})
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    train: TrainingConfig = field(default_factory=TrainingConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)
    stop: StopConfig = field(default_factory=StopConfig)
    watchdog: WatchdogConfig = field(default_factory=WatchdogConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    paths: PathsConfig = field(default_factory=PathsConfig)
    per_stage: dict[str, Any] = field(default_factory=dict)  # values that an experiment sets for each stage

    def __post_init__(self) -> None:
        if self.prior not in PRIORS:
            raise ValueError(f"prior={self.prior!r} is unknown; use one of {', '.join(PRIORS)}")


@dataclass(kw_only=True)
class PrepareCommand(PrepareConfig):
    """`python -m lediflow.prepare`."""

    verify: bool = False  # read the finished shards again and compare them with their SHA-256
    paths: PathsConfig = field(default_factory=PathsConfig)


@dataclass(kw_only=True)
class EncodeCommand(EncodeConfig):
    """`python -m lediflow.encode`."""

    verify: bool = False  # read the finished shards again and compare them with their SHA-256
    paths: PathsConfig = field(default_factory=PathsConfig)


@dataclass(kw_only=True)
class SampleCommand(SamplingOptions):
    """`python -m lediflow.sample`."""

    run: str = MISSING  # run folder of a flow
    sampler: str | None = None  # run folder of the latent sampler; null for the Gaussian baseline
    output: str = MISSING  # folder for 000000.png ... and samples.json
    count: int = bounded(64, at_least=1, at_most=MOST_IMAGES)  # number of images, numbered from 0
    paths: PathsConfig = field(default_factory=PathsConfig)


@dataclass(kw_only=True)
class ExportCommand(SamplingOptions):
    """`python -m lediflow.export`. The options of sampling are those of the pictures in the model card."""

    run: str = MISSING  # run folder of a flow
    sampler: str | None = None  # run folder of the latent sampler; null for the Gaussian baseline
    output: str = MISSING  # folder for all models, the model card README.md and samples.png
    # type in which parameters are stored: float32 | float16 | bfloat16; models compute in float32 after loading
    dtype: str = "float32"
    title: str | None = None  # of the model card; null: the name of the flow's run folder
    description: str | None = None  # a sentence or two for the model card
    # of the weights, an SPDX identifier such as cc-by-4.0; null: the card says that none was given
    license: str | None = None
    # results.json of lediflow.evaluate for the model card; refused if it is of other models
    results: str | None = None
    count: int = bounded(8, at_least=1, at_most=64)  # images in samples.png
    paths: PathsConfig = field(default_factory=PathsConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.dtype not in STORED_TYPES:
            raise ValueError(f"dtype={self.dtype!r} is unknown; use one of {', '.join(STORED_TYPES)}")


@dataclass(kw_only=True)
class StudioCommand(SamplingOptions):
    """`python -m lediflow.studio`. The options of sampling are where its sliders start."""

    run: str = MISSING  # run folder of a flow
    sampler: str | None = None  # run folder of the latent sampler; null for the Gaussian baseline
    port: int = bounded(7860, at_least=0, at_most=65_535)  # port of the page; 0: any free one
    # address of the page; only this machine's own is accepted, as the page has no password
    host: str = "127.0.0.1"
    # write the origin of every picture (hashes of the models, seed, settings) into its file; also --no-metadata
    metadata: bool = True
    paths: PathsConfig = field(default_factory=PathsConfig)


@dataclass(kw_only=True)
class EvaluateCommand(EvaluateConfig):
    """`python -m lediflow.evaluate`."""

    paths: PathsConfig = field(default_factory=PathsConfig)


@dataclass(kw_only=True)
class InterpolateCommand(InterpolateConfig):
    """`python -m lediflow.edit interpolate`."""

    paths: PathsConfig = field(default_factory=PathsConfig)


@dataclass(kw_only=True)
class VaryCommand(VaryConfig):
    """`python -m lediflow.edit vary`."""

    paths: PathsConfig = field(default_factory=PathsConfig)


@dataclass(kw_only=True)
class InpaintCommand(InpaintConfig):
    """`python -m lediflow.edit inpaint`."""

    paths: PathsConfig = field(default_factory=PathsConfig)


@dataclass(kw_only=True)
class AnonymityCommand(AnonymityConfig):
    """`python -m lediflow.edit anonymity`."""

    paths: PathsConfig = field(default_factory=PathsConfig)


@dataclass(kw_only=True)
class AnonymiseCommand(AnonymiseConfig):
    """`python -m lediflow.edit anonymise`."""

    paths: PathsConfig = field(default_factory=PathsConfig)


@dataclass(kw_only=True)
class AttributeCommand(AttributeConfig):
    """`python -m lediflow.edit attribute`."""

    paths: PathsConfig = field(default_factory=PathsConfig)


@dataclass(kw_only=True)
class SubmitCommand:
    """`python -m lediflow.submit`: options of the SLURM job."""

    slurm: SlurmConfig = field(default_factory=SlurmConfig)
    paths: PathsConfig = field(default_factory=PathsConfig)


COMMANDS: dict[str, type] = {
    "prepare": PrepareCommand,
    "encode": EncodeCommand,
    "train": TrainCommand,
    "sample": SampleCommand,
    "export": ExportCommand,
    "studio": StudioCommand,
    "evaluate": EvaluateCommand,
    "edit_interpolate": InterpolateCommand,
    "edit_vary": VaryCommand,
    "edit_inpaint": InpaintCommand,
    "edit_anonymise": AnonymiseCommand,
    "edit_anonymity": AnonymityCommand,
    "edit_attribute": AttributeCommand,
    "submit": SubmitCommand,
}
