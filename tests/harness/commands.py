"""Run the project's commands inside this process, without two seconds of imports for each call."""

from __future__ import annotations

import contextlib
import copy
import functools
import importlib
import io
import logging
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from unittest import mock

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.hydra import Hydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig

from lediflow.config.composition.checks import typed
from lediflow.config.composition.compose import composed, conf_folder

COMMANDS = ("prepare", "encode", "train", "checkpoint", "sample", "evaluate", "edit", "studio", "report")


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
