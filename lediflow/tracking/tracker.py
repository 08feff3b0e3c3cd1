"""Trackers receive the events of a run: the event log, which must not fail, and views of it, which may.

An event is a name, its place on the image clock, and named values. Nothing else is tracked: curves, progress and
dashboards are all made from events. `build_tracker` makes the tracker of a run from its configuration, with the views
of the table VIEWS.
"""

import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from lediflow.run_folder import RunFolder
from lediflow.tracking.background import BackgroundView
from lediflow.tracking.event_log import JsonlTracker, standing_events
from lediflow.tracking.metrics import VALUES, Values
from lediflow.tracking.progress import LINE_SECONDS, ProgressTracker, make_progress
from lediflow.tracking.tensorboard import TensorboardTracker
from lediflow.tracking.wandb.record import Target
from lediflow.tracking.wandb.training_view import Follower, OfflineHint, check_wandb, follower_command

log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class TrackingConfig:
    """Which views of a run are shown while it trains. None changes what it learns; the event log is always written."""

    progress: bool = True  # a bar on a terminal, a line now and then in a log file
    wandb: bool = False  # the run also appears in Weights & Biases
    # "online" sends while training, and needs a login; "offline" leaves it to `python -m lediflow.sync RUN`
    wandb_mode: str = "offline"
    wandb_project: str = "lediflow"  # the W&B project the run appears under
    wandb_entity: str | None = None  # the W&B team; None is the account's default
    tensorboard: bool = False  # also write the events for TensorBoard, to RUN/tensorboard


class Tracker(Protocol):
    """Receives the events of a run. Values are numbers, strings, booleans, None, or lists and dicts of these."""

    def record(self, event: str, images_seen: int, **values: Any) -> None:
        """Receive one event; a 0-d tensor counts as a number."""

    def close(self) -> None:
        """Finish pending writes. Nothing is recorded afterwards."""


class SilentTracker:
    """Ignores every event: the tracker of all ranks but rank 0."""

    def record(self, event: str, images_seen: int, **values: Any) -> None:
        pass

    def close(self) -> None:
        pass


class CompositeTracker:
    """The event log and its views as one tracker.

    The event log comes first, and its errors are raised. A view that raises is named in the log and dropped, because
    a run is worth more than its dashboard; `replay` can rebuild the view from the events.
    """

    def __init__(self, event_log: Tracker, views: list[Tracker]):
        self.event_log = event_log
        self.views = list(views)

    def record(self, event: str, images_seen: int, **values: Any) -> None:
        self.event_log.record(event, images_seen, **values)
        self.update_views(lambda view: view.record(event, images_seen, **values))

    def close(self) -> None:
        self.update_views(lambda view: view.close())
        self.event_log.close()

    def update_views(self, update: Callable[[Tracker], None]) -> None:
        """Call `update` with each view; drop a view that raises."""
        for view in list(self.views):
            try:
                update(view)
            except Exception as error:
                with contextlib.suppress(ValueError):  # another thread may have dropped it already
                    self.views.remove(view)
                log.warning(
                    "%s failed (%s) and is dropped; the event log continues", type(view).__name__, error
                )


class FencedTracker:
    """Drops events while `holds()` is false: a process that lost its lease must not write into another's log."""

    def __init__(self, tracker: Tracker, holds: Callable[[], bool]):
        self.tracker, self.holds = tracker, holds

    def record(self, event: str, images_seen: int, **values: Any) -> None:
        if self.holds():
            self.tracker.record(event, images_seen, **values)

    def close(self) -> None:
        self.tracker.close()


class Viewed(NamedTuple):
    """What a view may know of the run."""

    config: TrackingConfig
    folder: Path
    title: str
    total_images: int
    progress_seconds: float  # how often a line of progress is written
    values: Values  # titles and units of the numbers that it logs


def progress_view(run: Viewed) -> Tracker | None:
    """The progress bar or line, if it is switched on."""
    if not run.config.progress:
        return None
    return ProgressTracker(make_progress(run.title, run.total_images, every_seconds=run.progress_seconds))


def wandb_view(run: Viewed) -> Tracker | None:
    """Weights & Biases, if it is switched on."""
    config = run.config
    if not config.wandb:
        return None
    target = Target(config.wandb_mode, config.wandb_project, config.wandb_entity)
    check_wandb(target)
    if target.mode == "offline":
        return OfflineHint(run.folder)
    return Follower(follower_command(run.folder, target), run.folder)


def tensorboard_view(run: Viewed) -> Tracker | None:
    """TensorBoard, if it is switched on."""
    return BackgroundView(TensorboardTracker(run.folder, run.values)) if run.config.tensorboard else None


# makes the view of a run, or None if it is switched off; a new view is one entry
VIEWS: dict[str, Callable[[Viewed], Tracker | None]] = {
    "progress": progress_view,
    "wandb": wandb_view,
    "tensorboard": tensorboard_view,
}


def build_tracker(
    config: TrackingConfig,
    run_folder: str | Path,
    *,
    total_images: int,
    is_writer: bool = True,
    title: str = "training",
    progress_seconds: float = LINE_SECONDS,
    values: Values = VALUES,
) -> Tracker:
    """The tracker of a run; `is_writer` is true on rank 0 only, other ranks get a silent one."""
    if not is_writer:
        return SilentTracker()
    run = Viewed(config, Path(run_folder), title, total_images, progress_seconds, values)
    views = [view for make in VIEWS.values() if (view := make(run)) is not None]
    return CompositeTracker(JsonlTracker(RunFolder(run.folder).events), views)


def replay(path: str | Path, tracker: Tracker) -> int:
    """Send every standing event of the log at `path` to `tracker`, to rebuild a view; returns their number."""
    events = standing_events(path)
    for event in events:
        values = {key: value for key, value in event.items() if key not in ("time", "event", "images_seen")}
        tracker.record(event["event"], event["images_seen"], **values)
    return len(events)
