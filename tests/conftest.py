"""Runs that several tests look at, trained once: every stage at its smallest, on drawn pictures."""

from __future__ import annotations

import gc
import os
import signal
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from getpass import getuser
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from harness.durations import FileDurations
from harness.forks import Forks
from harness.lanes import ProcessGuard

if TYPE_CHECKING:
    from harness.commands import Said

COUNT, SIZE = 48, 16

# a shell's background job ignores Ctrl-C, and every process that its tests start would, too
signal.signal(signal.SIGINT, signal.default_int_handler)
# code that tests compile is neither read from nor left in the user's cache
os.environ.setdefault("LEDIFLOW_CACHE", str(Path(tempfile.gettempdir()) / f"lediflow-tests-{getuser()}"))
os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"  # more would be processes, which few tests may start
torch.set_num_threads(1)  # models this small lose more to threads than they gain
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read when Triton is imported; kernels serve CPUs where a test asks


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(ProcessGuard(), "process guard")
    config.pluginmanager.register(FileDurations())


def pytest_collection_finish() -> None:
    """A tenth of the time Python's garbage collector would go through the modules and tests that stay anyway."""
    gc.freeze()
    gc.set_threshold(20_000)


@pytest.fixture
def interpreted(monkeypatch) -> torch.device:
    """The device whose tensors Triton kernels serve: the GPU where there is one, else a CPU by interpretation."""
    from lediflow.nn import kernels

    if torch.cuda.is_available():
        return torch.device("cuda")
    monkeypatch.setattr(kernels, "interpreted", True)
    return torch.device("cpu")


@pytest.fixture(autouse=True, scope="session")
def own_route_file(tmp_path_factory):
    """Measured attention routes are neither read from nor left in the user's cache."""
    from lediflow.nn.neighborhood import routes

    routes.cache.file = tmp_path_factory.mktemp("cache") / "routes.json"


@pytest.fixture(scope="session")
def forks() -> Iterator[Forks]:
    """Starts processes as forks of one that has imported everything; the guard marks tests that use it."""
    server = Forks()
    yield server
    server.close()


@dataclass(frozen=True)
class Trained:
    """Folders of one whole path from pictures to trained models, and what each command said on the way."""

    root: Path
    commands: dict[str, tuple[str, ...]]
    said: dict[str, Said]

    def __getattr__(self, name: str) -> Path:
        return self.root / name


def commands_in(root: Path) -> dict[str, tuple[str, ...]]:
    """Every command of the path, by what it makes; all repeatable."""
    train = (
        "train",
        "experiment=smoke",
        "synthetic_images=0",
        f"data.path={root}/latents",
        "engine.device=cpu",
        "train.images=64",
    )
    parent = f"parent={root}/auxiliary"
    return {
        "shards": (
            "prepare",
            f"source={root}/pictures",
            f"output={root}/shards",
            f"size={SIZE}",
            "mode=grey",
            "workers=1",
        ),
        "latents": ("encode", f"source={root}/shards", f"output={root}/latents"),
        "auxiliary": (*train, "stage=auxiliary", f"run={root}/auxiliary"),
        "flow": (*train, "stage=flow", f"run={root}/flow", parent),
        "baseline": (*train, "stage=flow", "prior=gaussian", f"run={root}/baseline"),
        "sampler": (*train, "stage=latent_sampler", f"run={root}/sampler", parent),
    }


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> Trained:
    from harness.commands import succeed  # seconds of imports, which most tests do without

    from lediflow.data.synthetic import make_synthetic_images

    root = tmp_path_factory.mktemp("trained")
    make_synthetic_images(root / "pictures", COUNT, size=SIZE)
    commands = commands_in(root)
    return Trained(root, commands, {name: succeed(*command) for name, command in commands.items()})
