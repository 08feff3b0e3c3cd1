"""What a stage is: a loss for each batch, and a declaration of what the rest of the toolkit has to know of it.

A stage declares itself as one `StageKind`, entered in the table `lediflow.stages.STAGES`. Configuration, `--dry-run`,
throughput, evaluation and report read the declaration; none of them looks at the name of a stage or at the class of its
options. A declaration may require options: `widens_prior` those of `WideningOptions`, `distils` those of
lediflow/stages/distillation.py, `can_encode_once` the option `encode_once`, and `warmup` the option that it names.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol, TypeGuard

from jaxtyping import Float
from torch import Tensor, nn

from lediflow.data.streams.batch import Batch
from lediflow.errors import UserError
from lediflow.flow.noise import SampleNoise
from lediflow.flow.widening import Width
from lediflow.models.auxiliary import AuxiliaryModel
from lediflow.models.export import Spec
from lediflow.models.specs import AuxiliarySpec, LatentSamplerSpec, VelocitySpec
from lediflow.models.velocity import LatentSampler
from lediflow.stages.bins import Binned
from lediflow.stages.derivatives import PathDerivative
from lediflow.tracking.metrics import Values

AUTO = "auto"  # of prior_widening and prior_scale: measure the width on the prior and the data when the run begins
AUTO_SCALE = 3.0  # the value of prior_scale=auto if prior_widening=auto


class StageLoss(NamedTuple):
    """`loss` is the mean over the micro-batch and has gradients; all other tensors are detached and on the device.

    `metrics` are means over the micro-batch. `bins` are sums and counts, from which averages over batches and ranks
    can be computed.
    """

    loss: Float[Tensor, ""]
    metrics: dict[str, Float[Tensor, ""]]
    per_sample: Float[Tensor, " batch"]  # loss of each sample, with mean `loss`
    bins: dict[str, Binned]


def stage_loss(
    per_sample: Float[Tensor, " batch"], metrics: dict[str, Float[Tensor, ""]], bins: dict[str, Binned]
) -> StageLoss:
    """StageLoss from per-sample losses; their mean is also added to the metrics."""
    loss = per_sample.mean()
    detached = {name: value.detach() for name, value in {"loss": loss, **metrics}.items()}
    return StageLoss(loss, detached, per_sample.detach(), bins)


class Stage(Protocol):
    """A training stage. Random draws must come from `noise` with the batch's ids, as functions of (seed, id)."""

    name: str

    def loss(self, module: nn.Module, batch: Batch, noise: SampleNoise) -> StageLoss: ...


class WideningStage(Stage, Protocol):
    """A stage that starts from the learned prior, widened."""

    auxiliary: AuxiliaryModel | None  # frozen; None: the Gaussian baseline
    width: Width | None  # None: to be measured and set before the first step


class DistillingStage(Stage, Protocol):
    """A stage that can learn from a finished run of its own."""

    teacher: nn.Module | None  # frozen; None: the objective has none, or it is yet to be set
    # of the trained model along paths; None as for `teacher`
    derivative: PathDerivative | None


class SamplingStage(Stage, Protocol):
    """A stage whose teacher's paths can start from latents that a latent sampler generates."""

    latent_sampler: LatentSampler | None  # frozen; None: the paths start from latents of the images


# the models that generation consists of
Place = Literal["auxiliary", "flow", "latent_sampler"]


class ModelOptions(Protocol):
    """Image size and specifications of all models of a run: `model` of a training command."""

    @property
    def image_size(self) -> int: ...
    @property
    def auxiliary(self) -> AuxiliarySpec: ...
    @property
    def velocity(self) -> VelocitySpec: ...
    @property
    def latent_sampler(self) -> LatentSamplerSpec: ...


class Command(Protocol):
    """The part of a training command that a stage may depend on."""

    @property
    def stage(self) -> Any: ...  # an instance of the kind's `options`
    @property
    def prior(self) -> str: ...  # learned | gaussian
    @property
    def model(self) -> ModelOptions: ...


class WideningOptions(Protocol):
    """s and k of the widened prior N(mu, (k sigma)^2 + s^2), each `auto` or a number."""

    @property
    def prior_widening(self) -> int | float | str: ...
    @property
    def prior_scale(self) -> int | float | str: ...


def scale_of(options: WideningOptions) -> float:
    """k in N(mu, (k sigma)^2 + s^2); `auto` is 1 if s is a number: prior_widening=s gives N(mu, sigma^2 + s^2)."""
    if options.prior_scale != AUTO:
        return float(options.prior_scale)
    return AUTO_SCALE if options.prior_widening == AUTO else 1.0


def given_width(options: WideningOptions) -> Width | None:
    """The width given by the options; None for `auto`, which is measured at the start of the run."""
    if options.prior_widening == AUTO:
        return None
    return Width(scale_of(options), float(options.prior_widening))


def check_unwidened(options: WideningOptions) -> None:
    """Reject a width of the learned prior where there is none."""
    widening, scale = options.prior_widening, options.prior_scale
    if widening in (0, AUTO) and scale in (1, AUTO):
        return
    asked = f"stage.prior_scale={scale}" if widening in (0, AUTO) else f"stage.prior_widening={widening}"
    raise UserError(
        f"{asked} widens the learned prior, and prior=gaussian has none; leave "
        f"stage.prior_widening at 0 or {AUTO}, which is 0 there, and stage.prior_scale at 1 or {AUTO}"
    )


@dataclass(frozen=True, kw_only=True)
class LossCurve:
    """The plot of a stage's loss in the report."""

    title: str
    # {samples} becomes "" for training and " of held-out samples" for held-out samples, in plots that have one of both
    caption: str
    # the metric that is drawn
    key: str = "loss"
    # one plot for training and one for held-out samples, with a curve for each method; False: a plot for each run
    compares_methods: bool = False


@dataclass(frozen=True, kw_only=True)
class LossWarmup:
    """A part of the loss that grows when a run begins; held-out losses are compared only after that."""

    # the option with the number of images over which it grows
    option: str
    # what grows, in messages
    grows: str


def accept(command: Command) -> None:
    """The check of a stage whose options go with any others."""


def never(options: Any) -> bool:
    """The answer of a stage none of whose options waits for the CPU."""
    return False


@dataclass(frozen=True, kw_only=True)
class StageKind:
    """A stage, as the rest of the toolkit sees it."""

    # dataclass of the options; the default of its field `name` is the stage's name in the table
    options: type
    # the stage of a command, on the frozen auxiliary model (None: the stage has none)
    build: Callable[[Command, AuxiliaryModel | None], Stage]
    # key under `model` of the options of the model that it trains
    trains: str
    # specification of that model; None: the options as they are
    spec: Callable[[Command], Spec] | None = None
    # whether it builds on a trained auxiliary model, where the prior is learned
    has_parent: bool = True
    # parts of the frozen auxiliary model that a step calls: encoder, decoder
    calls: tuple[str, ...] = ()
    # whether prior=gaussian is possible
    allows_gaussian_prior: bool = False
    # options of classes that are younger than the stage; runs of a model without classes do not record them
    later_class_options: tuple[str, ...] = ()
    # whether its model computes on latents of the auxiliary model, not on images
    on_latents: bool = False
    # raises UserError for options of the stage that cannot be combined with others of the command
    check: Callable[[Command], None] = accept
    # whether a step waits for results from the CPU with these options: its passes cannot be recorded as a CUDA graph
    waits_for_cpu: Callable[[Any], bool] = never
    # whether it starts from the learned prior, widened by its options prior_widening and prior_scale
    widens_prior: bool = False
    # whether it can learn from a finished run, by its options objective, teacher_steps and teacher_pairs
    distils: bool = False
    # whether its teacher's paths can start from latents of a latent sampler, by its option sampled_share
    samples_latents: bool = False
    # whether the latents of its images can be encoded before training, where its option encode_once (a bool, or None
    # for "if that saves work") allows it; `draw_latents` then receives them
    can_encode_once: bool = False
    # the part of its loss that grows when a run begins; None: none
    warmup: LossWarmup | None = None
    # the model of generation that a run of this stage provides, for sampling and evaluation; None: none
    place: Place | None = None
    # its plot in the report; None: none
    curve: LossCurve | None = None
    # title, unit and direction of values that it reports, by key, besides those of tracking/metrics.py:STAGE_VALUES
    values: Values = field(default_factory=dict)

    def trained_spec(self, command: Command) -> Spec:
        """The specification of the model that the command trains."""
        spec: Spec = self.spec(command) if self.spec else getattr(command.model, self.trains)
        return spec

    def has_width(self, stage: Stage) -> TypeGuard[WideningStage]:
        """Whether a stage of this kind starts from a prior with a width to be set."""
        return self.widens_prior

    def can_have_teacher(self, stage: Stage) -> TypeGuard[DistillingStage]:
        """Whether a stage of this kind has a teacher to be set, for some objectives."""
        return self.distils

    def can_sample_latents(self, stage: Stage) -> TypeGuard[SamplingStage]:
        """Whether a stage of this kind has a latent sampler to be set, for paths of its teacher."""
        return self.samples_latents

    def follows_paths(self, options: Any) -> bool:
        """Whether the teacher's paths can start from latents of a latent sampler, with these options."""
        return self.samples_latents and options.follows_paths

    def needs_derivatives(self, options: Any) -> bool:
        """Whether the loss contains derivatives of the trained model, which need its whole weights."""
        return self.distils and options.needs_derivatives

    def has_teacher(self, options: Any) -> bool:
        """Whether the options ask for an objective with a teacher."""
        return self.distils and options.has_teacher

    def passes(self, options: Any) -> tuple[int, int]:
        """Forward passes for each image: of the trained model, of the teacher."""
        return (options.trained_passes, options.teacher_passes) if self.distils else (1, 0)

    def encode_once(self, options: Any) -> bool | None:
        """The option encode_once; False for a stage without it."""
        return options.encode_once if self.can_encode_once else False

    def warmup_images(self, options: Any) -> int:
        """Images over which a part of the loss grows; 0 for a stage without a warm-up."""
        return getattr(options, self.warmup.option) if self.warmup else 0
