"""Weights & Biases as a view of the event log. The only module that imports wandb, and only when it is used.

Each event's numbers appear as `event/key` over `images_seen`, those of a list or dict as `event/key/0` or
`event/key/name`. A held-out loss that has begun to rise also sends an alert. Offline (the default) nothing leaves
the machine: `wandb sync` uploads the folder later. A requeued run makes a second offline run of the same group;
for one continuous curve, send the whole event log to a new WandbTracker with `tracker.replay`.
"""

import contextlib
import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

from lediflow.errors import UserError
from lediflow.tracking.event_log import TURNED, numbers, plain

ALERTS = {TURNED: "held-out loss has turned"}  # title of the alert that W&B sends for an event
MODES = ("offline", "online")


class WandbTracker:
    """Sends the numbers of each event to one W&B run, stored under the run folder."""

    def __init__(
        self,
        run_folder: Path,
        run_config: dict[str, Any],
        *,
        mode: str = "offline",
        project: str = "lediflow",
        entity: str | None = None,
    ):
        if mode not in MODES:
            raise UserError(f"tracking.wandb_mode is {mode!r}; choose one of {', '.join(MODES)}")
        self.run = import_wandb().init(
            project=project,
            entity=entity,
            mode=mode,
            name=run_folder.name,
            group=run_folder.name,
            dir=run_folder,
            config=run_config,
            settings={"quiet": True, "console": "off"},  # the run has a log of its own
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
    """The wandb package, or a UserError that says how to install it."""
    with contextlib.suppress(ImportError):
        return importlib.import_module("wandb")
    raise UserError(
        "tracking.wandb=true, but wandb is not installed; `pip install wandb` or set tracking.wandb=false"
    )
