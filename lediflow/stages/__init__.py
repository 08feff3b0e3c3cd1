"""The training stages: the loss of each for a batch, and the table that says what else is to know of them."""

from lediflow.errors import UserError
from lediflow.stages.auxiliary import AUXILIARY
from lediflow.stages.flow import FLOW
from lediflow.stages.latent_sampler import LATENT_SAMPLER
from lediflow.stages.protocol import LossCurve, Place, StageKind

__all__ = ["STAGES", "LossCurve", "Place", "StageKind", "place_of", "stage_kind", "stages_in"]

# by name, in the order of pages and reports; a new stage is one entry
STAGES: dict[str, StageKind] = {
    "auxiliary": AUXILIARY,
    "flow": FLOW,
    "latent_sampler": LATENT_SAMPLER,
}


def stage_kind(name: str) -> StageKind:
    """The stage of this name; UserError, with the names that are known, if there is none."""
    if name not in STAGES:
        raise UserError(f"stage={name} is unknown; use one of {', '.join(STAGES)}")
    return STAGES[name]


def place_of(stage: str) -> Place | None:
    """The model of generation that a run of this stage provides; None for a stage that is not in the table."""
    return STAGES[stage].place if stage in STAGES else None


def stages_in(place: Place) -> str:
    """The stages whose runs provide this model, for messages."""
    return " or ".join(f"stage={name}" for name, kind in STAGES.items() if kind.place == place)
