"""Weights & Biases as a view of the event log: the only home of wandb, imported when first asked for.

Each event's numbers appear as `event/key` over `images_seen`, those of a list or dict as `event/key/0` or
`event/key/name`; a held-out loss that has turned is an alert too. Offline (the default) nothing leaves the
machine: `wandb sync` uploads the folder later. A requeued run makes a second offline run of the same group;
for one unbroken curve, feed the whole event log to a fresh tracker with `jsonl.replay`.
"""

import contextlib
import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

from lediflow.errors import UserError
from lediflow.tracking.config import TrackingConfig
from lediflow.tracking.events import TURNED, numbers, plain

ALERTS = {TURNED: "held-out loss has turned"}  # events that W&B sends an alert for
MODES = ("offline", "online")


class WandbTracker:
    """Sends the numbers of each event to one W&B run, stored under the run folder."""

    def __init__(self, config: TrackingConfig, run_folder: Path, run_config: dict[str, Any]):
        if config.wandb_mode not in MODES:
            raise UserError(f"tracking.wandb_mode is {config.wandb_mode!r}; choose one of {', '.join(MODES)}")
        self.run = import_wandb().init(
            project=config.wandb_project,
            entity=config.wandb_entity,
            mode=config.wandb_mode,
            name=run_folder.name,
            group=run_folder.name,
            dir=run_folder,
            config=run_config,
            settings={"quiet": True, "console": "off"},  # the run's own log tells the story
        )
        self.run.define_metric("images_seen", hidden=True)
        self.run.define_metric("*", step_metric="images_seen")

    def record(self, event: str, images_seen: int, **values: Any) -> None:
        self.run.log({"images_seen": images_seen, **dict(numbers(event, plain(values)))})
        if event in ALERTS:
            self.run.alert(title=ALERTS[event], text=values["message"])

    def close(self) -> None:
        self.run.finish()


def import_wandb() -> ModuleType:
    """The wandb package, or a word on how to get it."""
    with contextlib.suppress(ImportError):
        return importlib.import_module("wandb")
    raise UserError(
        "tracking.wandb=true, but wandb is not installed; `pip install wandb` or set tracking.wandb=false"
    )
