"""Number of training samples and epochs."""

from __future__ import annotations

from lediflow.config.building.dataset import check_samples
from lediflow.config.composition.schema import TrainCommand
from lediflow.data.shards.foreign import has_index, lacks_index
from lediflow.data.shards.reader import ShardReader
from lediflow.data.storage.folders import is_remote
from lediflow.data.streams.config import training_samples
from lediflow.text import Facts


def opened(command: TrainCommand) -> ShardReader | None:
    """The shards of data.path; None if they do not exist or are unfinished."""
    path = command.data.path
    if not path or not (is_remote(path) or (has_index(path) and not lacks_index(path))):
        return None
    return ShardReader.open(path, command.data.reading)


def sample_facts(command: TrainCommand) -> Facts:
    """Rows of the section "Samples": images and steps per epoch, if the data exists."""
    path = command.data.path
    if not path:
        return [("data.path", "not given")]
    if not is_remote(path):
        if lacks_index(path):
            return [("data.path", f"{path} holds tars without an index, which the run would create first")]
        if not has_index(path):
            drawn = f"; {command.synthetic_images} toy pictures would be drawn" * bool(
                command.synthetic_images
            )
            return [("data.path", f"{path} holds no finished shards yet{drawn}")]
    reader = opened(command)
    assert reader is not None
    check_samples(command, reader)
    images, batch = len(training_samples(reader, command.data)), command.train.global_batch
    return [
        ("data.path", str(path)),
        ("images per epoch", f"{images:,} ({len(reader) - images:,} held out)"),
        ("steps per epoch", f"{images / batch:,.1f}"),
        ("epochs", f"{command.train.images / images:,.1f}"),
    ]
