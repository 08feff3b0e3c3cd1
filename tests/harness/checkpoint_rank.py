"""A process that writes its part of checkpoints, and nothing else: `python -m harness.checkpoint_rank OPTIONS`.

Options as JSON: `folder`, `session`, `rank`, `ranks`, `images` of the saves, `dies` (SIGKILL between two tensors of the
first slice) and `most_bytes`, of a file during the first save, as a full disk would have it (0: any). Prints one line a
save: what became of it.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.saves import part, whole
from lediflow.engine.checkpoints import CheckpointFolder, CheckpointWriter
from lediflow.engine.ranks import Ranks


class Deadly(dict):
    """Tensors of which only one can be had."""

    def values(self) -> Iterator[Any]:  # type: ignore[override]
        yield next(iter(super().values()))
        os.kill(os.getpid(), signal.SIGKILL)


def main(options: dict[str, Any]) -> None:
    rank, ranks = options["rank"], options["ranks"]
    folder = CheckpointFolder(Path(options["folder"]))
    writer = CheckpointWriter(folder, Ranks(rank, ranks), options["session"])
    no_limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    if options.get("most_bytes"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (options["most_bytes"], no_limit[1]))
    for images in options["images"]:
        state = part(whole(images), rank, ranks)
        if options.get("dies"):
            state = replace(state, tensors=Deadly(state.tensors))
        writer.begin(images, state, {"images_seen": images})
        print(writer.wait_commit(), flush=True)
        resource.setrlimit(resource.RLIMIT_FSIZE, no_limit)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
