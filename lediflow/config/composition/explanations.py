"""Hydra's errors as sentences for users: what was asked, and the nearest names that exist."""

from __future__ import annotations

import dataclasses
import difflib
import re
import shlex
from collections.abc import Iterable
from typing import Any

from hydra.errors import OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import GrammarParseError, InterpolationResolutionError, MissingMandatoryValue

from lediflow.config.composition.compose import composed
from lediflow.config.composition.literal import OVERRIDE, shell_override
from lediflow.stages import STAGES, StageKind

REFERENCE_HINT = "${...} refers to another option; for a name with these characters write \\${"
REFERENCE_FAULTS = (InterpolationResolutionError, GrammarParseError)

_SCHEMAS = re.compile(r"\n\t\S+_schema\b")  # schemas in Hydra's lists of choices, which users do not choose
# Hydra's advice to add a key, which only a mapping of free keys accepts, not a dataclass
_APPENDING = re.compile(r"\nTo append to your config use .*(?=\nKey '[^']+' not in ')")
_INTERNALS = re.compile(r"\n\s+full_key: (\S+)(?:\n\s+(?:reference|object)_type=.*)*")  # added by OmegaConf
_NO_LIST = re.compile(r"merging override ([^=\s]+)=(.*)\n.* is not a ListConfig")
_NO_GROUP = re.compile(r"merging override ([^=\s]+)=(.*)\nInvalid type assigned: .* is not a subclass of")
_OVERRIDE = re.compile(r"Could not override '([^']+)'")
_GROUP = re.compile(r"Could not find '[^']+/([^']+)'\s+Available options in '[^']+':((?:\s*\n\t\S+)+)")


def explain_missing(error: MissingMandatoryValue) -> str:
    key = getattr(error, "full_key", None) or str(error)
    return f"{key} has no value; give one on the command line: {key}=..."


def explain(error: Exception, config_name: str) -> str:
    """Hydra's message, with the nearest valid names if a name was mistyped."""
    if isinstance(error, OverrideParseException):
        return explain_unreadable(error.override)
    reference = next(
        (fault for fault in (error, error.__cause__) if isinstance(fault, REFERENCE_FAULTS)), None
    )
    if reference is not None:
        key = getattr(reference, "full_key", None)
        return f"{f'{key}: ' if key else ''}{str(reference).partition(chr(10))[0]}; {REFERENCE_HINT}"
    message = str(error) if error.__cause__ is None else f"{error}\n{error.__cause__}"
    message = _SCHEMAS.sub("", message.partition("\nConfig search path:")[0])
    message = _APPENDING.sub("", _INTERNALS.sub(r" (option \1)", message))
    if match := _NO_LIST.search(message):
        return f"{match[1]}={match[2]} is not a list; write {shlex.quote(f'{match[1]}=[{match[2]}]')}"
    if match := _NO_GROUP.search(message):
        below = [name for name in option_names(config_name) if name.startswith(f"{match[1]}.")]
        return f"{match[1]}={match[2]}: {match[1]} is a group of options; set one of {', '.join(below)}"
    if match := _OVERRIDE.search(message):
        if stages := stages_with(match[1]):
            return f"{message}\nit is an option of {stages}"
        asked, known = match[1], [*option_names(config_name), *stage_options_in(message)]
    elif match := _GROUP.search(message):
        asked, known = match[1], match[2].split()
    else:
        return message
    nearest = difflib.get_close_matches(asked, known, n=3, cutoff=0.5)
    return f"{message}\nnearest valid names: {', '.join(nearest)}" if nearest else message


def stage_options(kind: StageKind) -> list[str]:
    return [f"stage.{field.name}" for field in dataclasses.fields(kind.options)]


def stages_with(option: str) -> str:
    """The stages that have this option of the group `stage`, for messages; "" if none has."""
    return " and ".join(f"stage={name}" for name, kind in STAGES.items() if option in stage_options(kind))


def stage_options_in(message: str) -> list[str]:
    """The options of the stage that Hydra's message is about, if it is about one."""
    named = (kind for kind in STAGES.values() if f"'{kind.options.__name__}'" in message)
    return [option for kind in named for option in stage_options(kind)]


def explain_unreadable(argument: str) -> str:
    """The message for an argument that Hydra cannot parse, with the corrected argument quoted for a shell."""
    if (found := OVERRIDE.fullmatch(argument)) is None:
        return f"{shlex.quote(argument)} is not an option; options are written key=value, --help lists them"
    key, value = f"{found['sign']}{found['key']}", found["value"]
    if value[:1] in ("[", "{"):
        example = {"[": f'{key}=["a b",c]', "{": f'{key}={{a:"b c"}}'}[value[0]]
        return f"{argument} cannot be read as a list or mapping; write it as in {shlex.quote(example)}"
    return f"{argument} cannot be read; a value in quotes is taken literally: {shell_override(key, value)}"


def option_names(config_name: str) -> list[str]:
    """Every dotted option of a command, but for those of the group `stage`, which depend on its choice."""
    names = _dotted(OmegaConf.to_container(composed(config_name), resolve=False))
    return [name for name in names if not name.startswith("stage.")]


def _dotted(node: Any, prefix: str = "") -> Iterable[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            yield f"{prefix}{key}"
            yield from _dotted(value, f"{prefix}{key}.")
