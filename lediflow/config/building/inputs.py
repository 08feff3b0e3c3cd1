"""Opens the inputs of a run (samples, parent, initial weights) and checks that they fit the options and each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lediflow.config.building.dataset import open_data
from lediflow.config.building.identity import full_identity
from lediflow.config.building.parent import Parent, check_parent_data, load_parent, warn_of_seen_images
from lediflow.config.building.warm_start import WarmStart, load_warm_start
from lediflow.config.composition.schema import TrainCommand
from lediflow.data.shards.reader import ShardReader
from lediflow.engine.ranks import Ranks


@dataclass(frozen=True)
class Inputs:
    """Samples, parent, initial weights and identity of a run."""

    reader: ShardReader
    parent: Parent | None
    warm_start: WarmStart | None
    identity: dict[str, Any]  # see lediflow.config.building.identity


def open_inputs(command: TrainCommand, ranks: Ranks) -> Inputs:
    """Open samples, parent and initial weights before anything is written; UserError if one does not fit."""
    parent, warm_start = load_parent(command), load_warm_start(command)
    reader = open_data(command, ranks)
    if parent:
        check_parent_data(command, parent, reader)
        if ranks.is_first:
            warn_of_seen_images(command, parent, reader)
    return Inputs(reader, parent, warm_start, full_identity(command, parent, warm_start))
