"""The listeners a run was configured with, as one tracker."""

from pathlib import Path
from typing import Any

from lediflow.tracking.composite import CompositeTracker
from lediflow.tracking.config import TrackingConfig
from lediflow.tracking.event_file import JsonlTracker
from lediflow.tracking.progress import ProgressTracker, make_progress
from lediflow.tracking.protocol import SilentTracker, Tracker
from lediflow.tracking.wandb import WandbTracker

EVENT_LOG = "events.jsonl"


def build_tracker(
    config: TrackingConfig,
    run_folder: str | Path,
    *,
    total_images: int,
    is_writer: bool = True,
    title: str = "training",
    run_config: dict[str, Any] | None = None,
) -> Tracker:
    """The tracker of a run; ranks that are not its one writer (rank 0) get silence."""
    if not is_writer:
        return SilentTracker()
    folder = Path(run_folder)
    views: list[Tracker] = []
    if config.progress:
        progress = make_progress(title, total_images, every_seconds=config.progress_seconds)
        views.append(ProgressTracker(progress))
    if config.wandb:
        views.append(WandbTracker(config, folder, run_config or {}))
    return CompositeTracker(JsonlTracker(folder / EVENT_LOG), views)
