"""A process that has imported everything, and forks: `python -m harness.fork_server`.

It reads a wish a line, as JSON, and answers with a line: {"module", "arguments", "env", "output"} does in a child what
`python -m module arguments...` does and gives the process id; {"ended": id} gives the exit status, null while the
process lives (-9: ended by SIGKILL).
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import runpy
import sys
import traceback

# everything that a child would import otherwise; torch imports its compiler when an optimizer is made
import deepspeed.comm.mori
import deepspeed.module_inject.auto_ep_layer
import deepspeed.runtime.zero.stage3  # noqa: F401
import hydra
import numpy.ma  # noqa: F401
import PIL.Image
import torch._dynamo  # noqa: F401
import webdataset  # noqa: F401
from deepspeed.ops import __compatible_ops__  # noqa: F401 - looks for compilers, which imports setuptools
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.hydra import Hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode

import lediflow.engine.deepspeed
import lediflow.evaluate
import lediflow.train  # noqa: F401
from harness.commands import compose_raw, load_cached, mode_of
from lediflow.config.composition.compose import conf_folder


def serve() -> None:
    compose_raw("train", "experiment=smoke", "stage=auxiliary")  # fills the caches of Hydra's parser
    PIL.Image.preinit()
    Hydra.get_mode = mode_of
    ConfigLoaderImpl._load_configuration_impl = load_cached
    gc.freeze()  # DeepSpeed collects garbage often: children need not go through all imported modules each time
    for line in sys.stdin:
        wish = json.loads(line)
        print(json.dumps(ended(wish["ended"]) if "ended" in wish else fork(**wish)), flush=True)


def compose_training(arguments: list[str]) -> None:
    """Compose the files that a training's options choose, for children to set values on a copy; others are ignored."""
    with (
        contextlib.suppress(Exception),
        hydra.initialize_config_dir(str(conf_folder()), job_name="train", version_base="1.3"),
    ):
        overrides = [*(word for word in arguments if "=" in word), "hydra.mode=RUN"]  # which Hydra adds
        GlobalHydra.instance().config_loader().load_configuration("train", overrides, RunMode.RUN)


def fork(module: str, arguments: list[str], env: dict[str, str], output: str) -> int:
    """Start a child in a process group of its own; its process id."""
    compose_training(arguments)
    if child := os.fork():
        return child
    status = 1
    try:
        os.setsid()
        os.environ.update(env)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        written = os.open(output, os.O_WRONLY)
        os.dup2(written, 1)
        os.dup2(written, 2)
        sys.argv[1:] = arguments
        sys.modules.pop(module, None)  # it is run again, as __main__
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(status)


def ended(child: int) -> int | None:
    found, status = os.waitpid(child, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if found else None


if __name__ == "__main__":
    serve()
