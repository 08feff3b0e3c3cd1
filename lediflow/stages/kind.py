"""What the rest of the toolkit has to know of a stage besides its loss.

A stage declares it as one `StageKind`, entered in the table `lediflow.stages.STAGES`. Configuration, `--dry-run`,
throughput, evaluation and report read the declaration; none of them asks for the name of a stage.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from lediflow.models.auxiliary import AuxiliaryModel
from lediflow.models.export import Spec
from lediflow.models.specs import AuxiliarySpec, LatentSamplerSpec, VelocitySpec
from lediflow.stages.protocol import Stage

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
    # whether its model computes on latents of the auxiliary model, not on images
    on_latents: bool = False
    # the model of generation that a run of this stage provides, for sampling and evaluation; None: none
    place: Place | None = None
    # its plot in the report; None: none
    curve: LossCurve | None = None

    def trained_spec(self, command: Command) -> Spec:
        """The specification of the model that the command trains."""
        spec: Spec = self.spec(command) if self.spec else getattr(command.model, self.trains)
        return spec
