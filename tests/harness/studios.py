"""The studio under test: its tasks on tiny models, and its page in a process of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from harness.edited import SIZE, save_tiny_runs
from lediflow.config.composition.schema import StudioCommand
from lediflow.studio.models import load_models
from lediflow.studio.strokes import enlargement
from lediflow.studio.tasks import Studio

# notes, line by line, every address that the process looks up or connects to
WATCHED = """
import runpy, sys
log = open(sys.argv.pop(1), "a", buffering=1)
def note(event, arguments):
    if event == "socket.connect":
        log.write(f"{arguments[1]}\\n")
    elif event == "socket.getaddrinfo":
        log.write(f"{arguments[0]}\\n")
sys.addaudithook(note)
sys.argv[0] = "lediflow.studio"
runpy.run_module("lediflow.studio", run_name="__main__", alter_sys=True)
"""


def tiny_studio(folder: Path, *, classes: Sequence[str] = (), **options: object) -> Studio:
    """The tasks with tiny models of grey pictures; runs in folder/runs, pictures in folder/made."""
    root = save_tiny_runs(folder / "runs", classes=classes)
    command = StudioCommand(run=str(root / "flow"), sampler=str(root / "sampler"), device="cpu", **options)
    (folder / "made").mkdir()
    return Studio(load_models(command), folder / "made")


def save_photograph(path: Path, seed: int = 0, size: int = SIZE) -> Path:
    """A grey picture that no other seed has."""
    levels = np.random.default_rng(seed).integers(0, 256, (size, size), dtype=np.uint8)
    Image.fromarray(levels).save(path)
    return path


def canvas(*layers: np.ndarray, side: int = SIZE * enlargement(SIZE)) -> dict:
    """The value of an editor with these layers on a grey photograph."""
    background = np.full((side, side, 4), (90, 90, 90, 255), np.uint8)
    return {"background": background, "layers": list(layers), "composite": background}


def stroke(rows: slice, columns: slice, alpha: int = 128, side: int = SIZE * enlargement(SIZE)) -> np.ndarray:
    """A layer with one rectangle of a translucent colour, in the editor's pixels."""
    layer = np.zeros((side, side, 4), np.uint8)
    layer[rows, columns] = (255, 40, 120, alpha)
    return layer


@dataclass(frozen=True)
class Served:
    """A studio that is running."""

    process: subprocess.Popen[str]
    line: str  # what it said when it was ready
    temporary: Path  # its TMPDIR
    addresses: Path  # a line for each address that it asked for

    @property
    def url(self) -> str:
        return re.findall(r"http://[\d.:]+", self.line)[0]

    def end(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, str]:
        """Send a signal; the exit status and what was said after the first line."""
        self.process.send_signal(number)
        said, _ = self.process.communicate(timeout=60)
        return self.process.returncode, said


@contextmanager
def served(folder: Path, *options: str) -> Iterator[Served]:
    """`python -m lediflow.studio` with the runs in folder/runs, at a free port."""
    temporary, addresses = folder / "tmp", folder / "addresses"
    temporary.mkdir()
    runs = [f"run={folder}/runs/flow", f"sampler={folder}/runs/sampler"]
    command = [sys.executable, "-c", WATCHED, str(addresses), *runs, "port=0", "device=cpu", *options]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=folder,
        env={**os.environ, "TMPDIR": str(temporary), "GRADIO_SHARE": "True", "GRADIO_SERVER_NAME": "0.0.0.0"},
    )  # fmt: skip
    try:
        assert process.stdout is not None
        lines = iter(process.stdout.readline, "")
        said = ""
        line = ""
        for line in lines:
            said += line
            if line.startswith("studio: http"):
                break
        else:
            raise AssertionError(said)
        yield Served(process, line, temporary, addresses)
    finally:
        process.kill()
        process.wait()
