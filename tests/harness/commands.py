"""Run the project's commands inside this process, without two seconds of imports for each call."""

from __future__ import annotations

import contextlib
import copy
import functools
import importlib
import io
import logging
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from unittest import mock

from hydra._internal.config_loader_impl import ConfigLoaderImpl, get_overrides_dirname
from hydra._internal.hydra import Hydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.utils import JobRuntime
from hydra.types import RunMode
from omegaconf import DictConfig

from lediflow.codecs import CODECS
from lediflow.config.composition.checks import typed
from lediflow.config.composition.compose import composed, conf_folder
from lediflow.engine.engines import ENGINES
from lediflow.stages import STAGES

COMMANDS = (
    "prepare", "encode", "train", "checkpoint", "sample", "evaluate", "edit", "studio", "export", "report",
)  # fmt: skip


@dataclass(frozen=True)
class Said:
    """What a command left behind: exit status and the two streams."""

    status: int
    out: str
    err: str


def invoke(command: str, *arguments: object) -> Said:
    """`python -m lediflow.<command> arguments...` through its `main`."""
    main = importlib.import_module(f"lediflow.{command}").main
    out, err, status = io.StringIO(), io.StringIO(), 0
    argv = [f"lediflow.{command}", *map(str, arguments)]
    with (
        logging_restored(),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        mock.patch.object(sys, "argv", argv),
        mock.patch.object(Hydra, "get_mode", mode_of),
        mock.patch.object(ConfigLoaderImpl, "_load_configuration_impl", load_cached),
    ):
        try:
            main()
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else int(end.code is not None)
    return Said(status, out.getvalue(), err.getvalue())


def mode_of(
    hydra: Hydra, config_name: str, overrides: list[str], find_mode: Callable[..., Any] = Hydra.get_mode
) -> Any:
    """Hydra composes the whole configuration to see hydra.mode, and again to run: half of a short command's time."""
    return find_mode(hydra, config_name, overrides) if "hydra.mode" in " ".join(overrides) else None


# --- composition: by Hydra once for each choice of files, since it is more than half of a short command's time

_loaded: dict[Any, DictConfig] = {}


def load_cached(
    loader: ConfigLoaderImpl,
    config_name: str,
    overrides: list[str],
    run_mode: RunMode,
    from_shell: bool = True,
    load: Callable[..., DictConfig] = ConfigLoaderImpl._load_configuration_impl,
    **options: bool,
) -> DictConfig:
    """As Hydra's own method: it reads and merges files once for each choice of them, values are set on a copy.

    What Hydra refuses is given to Hydra whole, so that its messages are those that a user gets.
    """
    try:
        parsed = OverridesParser.create().parse_overrides(overrides)
        if run_mode is not RunMode.RUN or any(item.is_sweep_override() for item in parsed):
            return load(loader, config_name, overrides, run_mode, from_shell, **options)
        chosen = [item.input_line for item in parsed if is_choice(item)]
        key = (
            config_name,
            JobRuntime().get("name"),
            *chosen,
            *map(str, loader.get_sources()),
            *CODECS,
            *ENGINES,
        )
        key += tuple((name, kind.options) for name, kind in STAGES.items())
        if key not in _loaded:
            _loaded[key] = load(loader, config_name, chosen, run_mode, from_shell, **options)
        config = copy.deepcopy(_loaded[key])
        loader._apply_overrides_to_config([item for item in parsed if not is_choice(item)], config)
        of_command = [item for item in parsed if not item.is_hydra_override()]
        config.hydra.overrides.task = [item.input_line for item in of_command]
        config.hydra.job.override_dirname = get_overrides_dirname(
            of_command, **config.hydra.job.config.override_dirname
        )
        config.hydra.runtime.cwd = os.getcwd()  # noqa: PTH109 - as Hydra
    except Exception:
        return load(loader, config_name, overrides, run_mode, from_shell, **options)
    return config


def succeed(command: str, *arguments: object) -> Said:
    """As `invoke`, for commands that must work."""
    said = invoke(command, *arguments)
    assert said.status == 0, said.err
    return said


def compose(command: str, *overrides: str) -> Any:
    """The command's configuration as its dataclasses."""
    return typed(compose_raw(command, *overrides))


def compose_raw(command: str, *overrides: str) -> DictConfig:
    """The command's configuration as Hydra composes it.

    Files are read and merged once per process for each choice of them; values are set on a copy, by Hydra's function.
    """
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    choices = tuple(str(override.input_line) for override in parsed if is_choice(override))
    config = copy.deepcopy(composed_from(command, choices))
    ConfigLoaderImpl._apply_overrides_to_config([item for item in parsed if not is_choice(item)], config)
    return config


@functools.cache
def composed_from(command: str, choices: tuple[str, ...]) -> DictConfig:
    return composed(command, choices)


def is_choice(override: Override) -> bool:
    """Whether it chooses a file of conf/ or is about Hydra itself, rather than setting a value."""
    name = override.key_or_group
    is_hydras = name.startswith(("hydra/", "hydra."))
    return override.package is not None or is_hydras or (conf_folder() / name).is_dir()


@contextlib.contextmanager
def logging_restored() -> Iterator[None]:
    """Hydra configures the root logger for its job; the next test must not write to that job's streams."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
