"""Seconds from the start of a process to its first image, with empty and with filled caches of compiled code.

    python tools/bench/first_images.py --model demo --runtime compiled     one start, with the caches of the environment

`start_rows` starts such processes with caches of their own. A start has three phases: imports, building the models
(with random weights, where a user reads a file), and the first image, which compiles.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from chains import LEDIFLOW, random_pipeline
from common import Row, command_line

from lediflow.sampling.options import PRECISIONS

# the last is of Python's own bytecode, without which 4 to 5 s go to compiling PyTorch's sources at every start
CACHES = ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR", "LEDIFLOW_CACHE", "PYTHONPYCACHEPREFIX")
Stamps = dict[str, float]  # a time of the system's clock for each phase's end


def main(arguments: list[str] | None = None) -> None:
    """Make one image, and print when which phase had ended."""
    imported = time.time()
    parser = command_line(__doc__)
    parser.add_argument("--model", default="demo", help="a file of conf/model")
    parser.add_argument("--runtime", default="eager", choices=["eager", "compiled", "exported"])
    parser.add_argument("--precision", default="float32", choices=PRECISIONS)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--route", default="auto", help="of neighborhood attention")
    chosen, overrides = parser.parse_known_args(arguments)
    pipeline = random_pipeline(chosen.model, LEDIFLOW, torch.device(chosen.device), chosen.route, overrides)
    built = time.time()
    pipeline.use(chosen.runtime, chosen.precision)(1).images.cpu()
    print(json.dumps({"imports": imported, "models": built, "image": time.time()}))


def run_start(arguments: Sequence[str], environment: dict[str, str]) -> Stamps:
    """Run this file in a process of its own; its start is the stamp "start"."""
    began = time.time()
    done = subprocess.run(
        [sys.executable, __file__, *arguments],
        env=os.environ | environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"first_images.py {' '.join(arguments)} failed: {done.stderr.strip()[-2000:]}")
    return {"start": began, **json.loads(done.stdout.splitlines()[-1])}


def start_rows(
    model: str,
    runtime: str,
    arguments: Sequence[str],
    run: Callable[[Sequence[str], dict[str, str]], Stamps] = run_start,
) -> Iterator[tuple[Row, Row]]:
    """What a row is about and its seconds, with empty caches and then with those that the first start has filled."""
    with TemporaryDirectory() as scratch:
        environment = {name: str(Path(scratch) / name.lower()) for name in CACHES}
        environment["PYTHONDONTWRITEBYTECODE"] = ""  # which Python takes as unset
        for caches in ("cold", "warm"):
            stamps = run(["--model", model, "--runtime", runtime, *arguments], environment)
            about = {"part": "first image", "model": model, "runtime": runtime, "caches": caches}
            yield about, seconds_of(stamps)


def seconds_of(stamps: Stamps) -> Row:
    """The length of each phase, and of all."""
    return {
        "imports s": stamps["imports"] - stamps["start"],
        "models s": stamps["models"] - stamps["imports"],
        "image s": stamps["image"] - stamps["models"],
        "total s": stamps["image"] - stamps["start"],
    }


if __name__ == "__main__":
    main()
