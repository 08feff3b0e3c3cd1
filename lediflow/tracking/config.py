"""Which views of a run are shown while it trains. The event log is always written."""

from dataclasses import dataclass

from lediflow.ranges import bounded


@dataclass(kw_only=True)
class TrackingConfig:
    """Choices about watching a run; none of them changes what it learns."""

    progress: bool = True  # a bar on a terminal, a line now and then in a log file
    progress_seconds: float = bounded(10.0, at_least=0)  # how often that line is written; the bar ignores it
    wandb: bool = False  # also send the events to Weights & Biases
    wandb_mode: str = "offline"  # written to the run folder for a later `wandb sync`; "online" needs a login
    wandb_project: str = "lediflow"  # the W&B project the run appears under
    wandb_entity: str | None = None  # the W&B team; None is the account's default
