"""What each command may be told: one dataclass per command, made of the dataclasses of the objects it builds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from lediflow.cluster.jobs import SlurmConfig
from lediflow.data.encode import EncodeConfig
from lediflow.data.prepare import PrepareConfig
from lediflow.data.streams.config import DataConfig
from lediflow.engine.protocol import EngineConfig
from lediflow.engine.stop import StopConfig
from lediflow.engine.watchdog import WatchdogConfig
from lediflow.evaluation.config import EvaluateConfig
from lediflow.models.specs import AuxiliarySpec, LatentSamplerSpec, VelocitySpec
from lediflow.ranges import bounded, seed_field
from lediflow.sampling import SamplingOptions
from lediflow.sampling.folder import MOST_IMAGES
from lediflow.stages.auxiliary import AuxiliaryStageConfig
from lediflow.stages.flow import FlowStageConfig
from lediflow.stages.latent_sampler import LatentSamplerStageConfig
from lediflow.tracking.tracker import TrackingConfig
from lediflow.training.config import TrainingConfig

STAGES = (AuxiliaryStageConfig, FlowStageConfig, LatentSamplerStageConfig)


@dataclass(kw_only=True)
class ModelConfig:
    """The three models of a run's data; a stage trains one of them."""

    image_size: int = bounded(
        MISSING, at_least=1
    )  # side of what the models see: pixels, or latents of the codec
    channels: int = bounded(MISSING, at_least=1)  # of what the models see
    auxiliary: AuxiliarySpec = MISSING
    velocity: VelocitySpec = MISSING
    latent_sampler: LatentSamplerSpec = MISSING


@dataclass(kw_only=True)
class PathsConfig:
    runs: str = "runs"  # every run folder's default parent


@dataclass(kw_only=True)
class TrainCommand:
    """`python -m lediflow.train`."""

    name: str = MISSING  # the experiment's name: the default run folder carries it
    run: str = MISSING  # run folder; the same folder again continues the run
    seed: int = seed_field()  # of initial weights, order and every random draw
    prior: str = "learned"  # learned: LeDiFlow | gaussian: the flow-matching baseline (flow stage only)
    parent: str | None = None  # run folder of the auxiliary model that flow and latent_sampler build on
    other_data: bool = False  # accept a parent that was trained on other data than data.path
    warm_start: str | None = (
        None  # run or export folder whose weights the model begins with; null: fresh ones
    )
    synthetic_images: int = bounded(
        0, at_least=0
    )  # draw this many toy pictures into data.path first (smoke tests)
    dry_run: bool = False  # say what the run would take, and start nothing; also --dry-run
    nodes: int = bounded(
        0, at_least=0
    )  # a dry run also says what the run would be on up to so many machines; 0: it does not
    dry_run_ranks: int = bounded(
        0, at_least=0
    )  # processes that a dry run reckons with; 0: as many as were started
    stage: Any = field(
        default=MISSING, metadata={"types": STAGES}
    )  # auxiliary | flow | latent_sampler, each with options of its own
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    train: TrainingConfig = field(default_factory=TrainingConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)
    stop: StopConfig = field(default_factory=StopConfig)
    watchdog: WatchdogConfig = field(default_factory=WatchdogConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    paths: PathsConfig = field(default_factory=PathsConfig)
    per_stage: dict[str, Any] = field(default_factory=dict)  # values an experiment chooses by stage


@dataclass(kw_only=True)
class PrepareCommand(PrepareConfig):
    """`python -m lediflow.prepare`."""

    verify: bool = False  # read the finished shards once more and compare them with their SHA-256
    paths: PathsConfig = field(default_factory=PathsConfig)


@dataclass(kw_only=True)
class EncodeCommand(EncodeConfig):
    """`python -m lediflow.encode`."""

    verify: bool = False  # read the finished shards once more and compare them with their SHA-256
    paths: PathsConfig = field(default_factory=PathsConfig)


@dataclass(kw_only=True)
class SampleCommand(SamplingOptions):
    """`python -m lediflow.sample`."""

    run: str = MISSING  # run folder of a flow
    sampler: str | None = None  # run folder of a latent sampler; the Gaussian baseline needs none
    output: str = MISSING  # 000000.png ... and samples.json
    count: int = bounded(64, at_least=1, at_most=MOST_IMAGES)  # how many images, numbered from 0
    paths: PathsConfig = field(default_factory=PathsConfig)


@dataclass(kw_only=True)
class EvaluateCommand(EvaluateConfig):
    """`python -m lediflow.evaluate`."""

    paths: PathsConfig = field(default_factory=PathsConfig)


@dataclass(kw_only=True)
class SubmitCommand:
    """`python -m lediflow.submit`: what is asked of SLURM."""

    slurm: SlurmConfig = field(default_factory=SlurmConfig)
    paths: PathsConfig = field(default_factory=PathsConfig)


COMMANDS: dict[str, type] = {
    "prepare": PrepareCommand,
    "encode": EncodeCommand,
    "train": TrainCommand,
    "sample": SampleCommand,
    "evaluate": EvaluateCommand,
    "submit": SubmitCommand,
}
