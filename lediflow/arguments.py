"""Command lines of flags: those of `status`, `report`, `sync` and `doctor`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

CONFIGURATION = "--cfg"  # as commands with Hydra have it
MISSING = "???"  # a value that has to be given, as OmegaConf writes it


def parse(parser: argparse.ArgumentParser, words: Sequence[str] | None = None) -> argparse.Namespace:
    """The arguments; `--cfg job` prints them as YAML instead, and ends the process with status 0."""
    words = sys.argv[1:] if words is None else words
    parser.add_argument(CONFIGURATION, choices=["job"], help="print these options as YAML, and do nothing")
    if CONFIGURATION in (word.partition("=")[0] for word in words):
        for action in parser._actions:
            if action.nargs == argparse.ONE_OR_MORE and not action.option_strings:
                action.nargs, action.default = argparse.ZERO_OR_MORE, MISSING
    arguments = parser.parse_args(words)
    if arguments.cfg:
        options = {name: plain(value) for name, value in vars(arguments).items() if name != "cfg"}
        print(yaml.safe_dump(options, sort_keys=False, allow_unicode=True), end="")
        sys.exit(0)
    return arguments


def plain(value: Any) -> Any:
    """A value as YAML has it."""
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    return str(value) if isinstance(value, Path) else value
