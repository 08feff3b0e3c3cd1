"""From `train.run` to the loss of a stage a reader opens few files.

Counted is every file of lediflow/ of which a function runs after the call of `train.run` and up to the first call of
the stage's `loss`, in a run that begins. Not counted are

- `LIBRARIES`: packages and modules behind an interface that a reader can take on trust on this way;
- files of which only constructors and properties run: parts that are put together for later.
"""

import sys
from pathlib import Path
from types import FrameType

import pytest
from harness.commands import compose_raw, logging_restored
from omegaconf import DictConfig

import lediflow
from lediflow import train

PACKAGE = f"{Path(lediflow.__file__).parent}/"
LIBRARIES = {
    "engine", "data", "models", "nn", "flow", "codecs", "tracking",
    "claims.py", "disk.py", "errors.py", "host_memory.py", "ranges.py", "records.py", "run_folder.py", "text.py",
}  # fmt: skip
MOST_FILES = 18


def is_step(frame: FrameType) -> bool:
    """Whether a call is one of a function or method, neither of a constructor, a property nor part of an expression."""
    name, owner = frame.f_code.co_name, frame.f_code.co_qualname.partition(".")[0]
    if name.startswith("<") or name in ("__init__", "__post_init__"):
        return False
    return not isinstance(getattr(frame.f_globals.get(owner), name, None), property)


def files_until_the_loss(config: DictConfig) -> list[str]:
    """The files that are counted, in the order in which they are first needed."""
    files = dict[str, None]()

    def note(frame: FrameType, event: str, _: object) -> None:
        path = frame.f_code.co_filename
        if event != "call" or not path.startswith(PACKAGE):
            return
        place = path.removeprefix(PACKAGE)
        room = place.partition("/")[0]
        if room not in LIBRARIES and is_step(frame):
            files[place] = None
        if (room, frame.f_code.co_name) == ("stages", "loss"):
            sys.setprofile(None)

    sys.setprofile(note)
    try:
        train.run(config)
    finally:
        sys.setprofile(None)
    return list(files)


@pytest.mark.parametrize(
    ("run", "stage"),
    [("auxiliary", "auxiliary"), ("flow", "flow"), ("baseline", "flow"), ("sampler", "latent_sampler")],
)
def test_a_reader_opens_at_most_18_files_from_the_command_to_the_loss(run, stage, trained, tmp_path):
    command = [word for word in trained.commands[run] if not word.startswith("run=")]
    with logging_restored():
        files = files_until_the_loss(compose_raw(*command, f"run={tmp_path}/run", "train.images=16"))
    assert files[0] == "train.py"
    assert {"training/loop.py", f"stages/{stage}.py"} <= {*files}
    assert len(files) <= MOST_FILES, files
