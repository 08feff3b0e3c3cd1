"""Which averaged weights of a checkpoint a run exports, and the facts in export/config.json.

    export             last | best: averaged weights at the end of the checkpoint, or at the best validation
    images_seen        by these weights          trained_images   by the run, at the checkpoint
    held_out_loss      of these weights, null where no validation was made there
    best_images_seen   of the best validation    ended            images | patience: why the run ended, or null

Both kinds are written in the same way: the best weights of a longer run and the last weights of a run that ends there
are the same file.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lediflow.engine.checkpoints import Checkpoint
from lediflow.engine.checkpoints.writing import write_averaged
from lediflow.engine.ema import BEST
from lediflow.errors import UserError
from lediflow.models.export import publish, save_weights

LAST = "last"
EXPORTS = (LAST, BEST)
WEIGHTS = {LAST: "averaged", BEST: "best"}  # train.export -> --weights of `lediflow.checkpoint export`


def export_weights(
    checkpoint: Checkpoint, folder: Path, which: str | None = None, **more: Any
) -> dict[str, Any]:
    """Write an export folder and return the facts in it. `which`: last | best, None takes what the run exports.

    Raises UserError where the best weights are not in the checkpoint.
    """
    which = which or checkpoint.progress.get("exports", LAST)
    facts = facts_of_weights(checkpoint, which) | more
    if which == LAST:  # the same file: dependent runs identify it by its hash
        save_weights(checkpoint.model, folder, facts)
    else:
        publish(lambda new: write_averaged(new, checkpoint.state, BEST), folder, facts)
    return facts


def facts_of_weights(checkpoint: Checkpoint, which: str) -> dict[str, Any]:
    """The facts in config.json about the weights."""
    progress = checkpoint.progress
    found = progress.get("held_out") or {}
    best, last = found.get("best"), found.get("last")
    chosen = best_validation(checkpoint, best) if which == BEST else last
    seen = chosen["images_seen"] if which == BEST and chosen else checkpoint.images_seen
    return {
        **progress["export"],
        "export": which,
        "images_seen": seen,
        "held_out_loss": finite(chosen["loss"]) if chosen and chosen["images_seen"] == seen else None,
        "trained_images": checkpoint.images_seen,
        "best_images_seen": best["images_seen"] if best else None,
        "ended": progress.get("ended"),
    }


def best_validation(checkpoint: Checkpoint, best: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """The best validation; UserError for a checkpoint without its weights."""
    if best is None or not holds_best(checkpoint):
        run = checkpoint.path.parent.parent
        raise UserError(
            f"{checkpoint.path} holds no weights of a best validation: the run was not trained with train.export=best, "
            f"or had no validation until there; export its last averaged weights: {export_command(run, LAST)}"
        )
    return best


def holds_best(checkpoint: Checkpoint) -> bool:
    """Whether the weights of the best validation are in the checkpoint."""
    return any(key.startswith(f"{BEST}/") for key in checkpoint.state.shapes)


def export_command(run: Path, which: str) -> str:
    """The command line that exports the last or the best weights from a run's newest checkpoint."""
    return shlex.join(
        ["python", "-m", "lediflow.checkpoint", "export", str(run), "--weights", WEIGHTS[which]]
    )


def finite(loss: float) -> float | None:
    """The loss, or None where it is not finite: JSON has finite numbers only."""
    return loss if math.isfinite(loss) else None
