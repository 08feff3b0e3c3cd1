"""The project's commands inside this process: the same front door, without two seconds of imports for each call."""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from unittest import mock

from lediflow.config.composition.compose import composed, typed

COMMANDS = ("prepare", "encode", "train", "checkpoint", "sample", "evaluate", "report")


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
    ):
        try:
            main()
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else int(end.code is not None)
    return Said(status, out.getvalue(), err.getvalue())


def succeed(command: str, *arguments: object) -> Said:
    """As `invoke`, for commands that must work."""
    said = invoke(command, *arguments)
    assert said.status == 0, said.err
    return said


def compose(command: str, *overrides: str) -> Any:
    """The command's configuration as its dataclasses."""
    return typed(compose_raw(command, *overrides))


def compose_raw(command: str, *overrides: str) -> Any:
    """The command's configuration as Hydra composes it."""
    return composed(command, overrides)


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
