"""Strings on a command line are taken as they stand; only what is no string is read by Hydra's grammar.

`output=2024_05_03`, `source=/data/ü (1)` and `run=runs/a,train.images=5` are names of folders. Which options are
strings is read from the commands' dataclasses. What Hydra would read otherwise is put in quotes before Hydra sees it:

    null        for an option that may be null; a folder of that name is ./null
    "..."       quotes around the whole value are Hydra's and stay as they are
    ${...}      refers to another option, as everywhere in the configuration; \\${ stands for the characters
    a,b         in a sweep (-m, lediflow.submit) two values, unless a file or folder has this name
    choice(...) and the like are Hydra's in a sweep
"""

from __future__ import annotations

import os
import re
import shlex
import types
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, Union, get_args, get_origin, get_type_hints

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Quote, QuotedString
from hydra.errors import HydraException

from lediflow.errors import UserError

OVERRIDE = re.compile(r"(?P<sign>\+{0,2})(?P<key>[A-Za-z_][\w.]*)=(?P<value>.*)", re.DOTALL)
QUOTED = re.compile(r"""(['"])(?:\\.|(?!\1)[^\\])*\1""", re.DOTALL)
SWEEPS = re.compile(r"(choice|range|interval|glob|shuffle|sort|tag)\s*\(.*\)", re.DOTALL)
CLOSING = {"[": "]", "{": "}", "(": ")"}
MULTIRUN = ("-m", "--multirun")


def is_multirun(arguments: Sequence[str]) -> bool:
    return any(argument in MULTIRUN or argument.lower() == "hydra.mode=multirun" for argument in arguments)


def literal_arguments(
    arguments: Sequence[str], schemas: Sequence[Any], *, is_sweep: bool | None = None
) -> list[str]:
    """The arguments with string values in quotes where Hydra's grammar would not take them as they stand.

    `schemas` are the dataclasses whose options they name, the first that knows a key counts. UserError for values
    that hold a line break or bytes that are no text.
    """
    sweeps = is_multirun(arguments) if is_sweep is None else is_sweep
    return [literal_argument(argument, schemas, sweeps) for argument in arguments]


def literal_argument(argument: str, schemas: Sequence[Any], is_sweep: bool) -> str:
    check_text(argument)
    found = OVERRIDE.fullmatch(argument)
    if found is None:
        return argument
    kind = next((kind for schema in schemas if (kind := type_of(schema, found["key"])) is not None), None)
    start, value = argument[: found.start("value")], found["value"]
    if kind is None or not is_textual(kind):
        return argument if is_readable(argument) or value[:1] in CLOSING else start + quoted(value)
    written = start + literal_value(value, kind, is_sweep, found["key"])
    return argument if meaning(argument) == meaning(written) else written


def check_text(argument: str) -> None:
    """Refuse what no option can hold, and a value without an option."""
    if argument.startswith("="):
        raise UserError(f"{argument}: there is no option before the =; options are written key=value")
    check_utf8(argument)
    if len(argument.splitlines()) > 1 or argument.endswith(("\n", "\r")):
        raise UserError(f"{argument!r}: a value cannot hold a line break; leave it out")


def check_utf8(argument: str) -> None:
    """Refuse a name that weights and records cannot be stored under."""
    if any("\ud800" <= character <= "\udfff" for character in argument):
        raise UserError(
            f"{argument!a}: the name holds bytes that are not UTF-8; rename the file or folder, or give a link to "
            "it that has another name"
        )


def literal_value(value: str, kind: Any, is_sweep: bool, key: str) -> str:
    """A string or a container of strings in Hydra's grammar, as its type takes it."""
    if value.lower() == "null" and type(None) in members(kind):
        return value
    container = next((member for member in members(kind) if get_origin(member) in (list, dict)), None)
    if container is not None:
        return literal_container(value, container) if value[:1] in CLOSING else value
    if is_sweep and SWEEPS.fullmatch(value):
        return literal_choices(value)
    is_one = not is_sweep or os.path.lexists(value.replace(r"\${", "${"))
    parts = [value] if is_one else split(value)
    if len(parts) > 1:
        parts = [part.strip() for part in parts]  # as Hydra does
        check_parts(key, value, parts)
    return ",".join(quoted_once(part) for part in parts)


def check_parts(key: str, value: str, parts: Sequence[str]) -> None:
    """Refuse values of a sweep that are more likely one name, such as those of older sweeps' folders."""
    if any("=" in part and not QUOTED.fullmatch(part) for part in parts):
        one, several = typed(key, value), typed(key, *parts)
        raise UserError(
            f"{key}={value}: a comma separates the values of a sweep, and nothing has this whole name. For one name "
            f"write {one}, for {len(parts)} values {several}"
        )


def literal_choices(value: str) -> str:
    """choice(a,b) as a,b in quotes, which Hydra drops inside a function; other functions are left to Hydra."""
    name, _, rest = value.partition("(")
    inner = rest.rstrip()[:-1]
    if name.strip() != "choice":
        return value
    return ",".join(quoted_once(part.strip()) for part in split(inner))


def literal_container(value: str, kind: Any) -> str:
    """[a,b] and {a:b} with their strings in quotes; other values, and what is not closed, as they are."""
    opening, inner = value[0], value[1:-1]
    if value[-1:] != CLOSING[opening] or (opening == "{") != (get_origin(kind) is dict):
        return value
    (*_, entry) = get_args(kind)
    parts = [part.strip() for part in split(inner)] if inner.strip() else []
    if opening == "[":
        return f"[{','.join(literal_entry(part, entry) for part in parts)}]"
    pairs = [part.partition(":") for part in parts]
    return "{" + ",".join(f"{name}:{literal_entry(text.strip(), entry)}" for name, _, text in pairs) + "}"


def literal_entry(value: str, kind: Any) -> str:
    if not is_textual(kind):
        return value
    return (
        literal_container(value, kind) if get_origin(kind) in (list, dict) and value else quoted_once(value)
    )


def split(text: str) -> list[str]:
    """At commas that are not in quotes, brackets or ${...}; quotes count where a value may begin."""
    parts, start, position, closers = [], 0, 0, list[str]()
    may_begin = True
    while position < len(text):
        character, step = text[position], 1
        if may_begin and (found := QUOTED.match(text, position)):
            step = found.end() - position
        elif text.startswith("${", position) and "}" in text[position:]:
            closers, step = [*closers, "}"], 2
        elif character in "[{" and CLOSING[character] in text[position:]:
            closers = [*closers, CLOSING[character]]
        elif closers and character == closers[-1]:
            closers = closers[:-1]
        elif character == "," and not closers:
            parts.append(text[start:position])
            start = position + 1
        may_begin = character in ",[{:" or (may_begin and character == " ")
        position += step
    return [*parts, text[start:]]


def quoted_once(value: str) -> str:
    return value if QUOTED.fullmatch(value) else quoted(value)


def typed(key: str, *values: str) -> str:
    """An override as a shell takes it, with these strings as its values."""
    return shlex.quote(
        f"{key}={','.join(QuotedString(value, Quote.double).with_quotes() for value in values)}"
    )


def quoted(value: str) -> str:
    """A string in Hydra's grammar; `${...}` in it still refers to an option."""
    return QuotedString(value, Quote.single).with_quotes()


def override_value(text: str) -> str:
    """Any text, such as a path, as a value in Hydra's grammar that stands for exactly this text."""
    return quoted(without_references(text))


def without_references(text: str) -> str:
    """The text as OmegaConf reads it as a value: `${` in it refers to nothing."""
    return re.sub(r"(\\*)\$\{", lambda found: found[1] * 2 + r"\${", text)


def is_readable(argument: str) -> bool:
    """Whether Hydra's grammar takes the argument."""
    return meaning(argument) is not None


@cache
def meaning(argument: str) -> tuple[Any, Any] | None:
    """What Hydra's grammar reads, whatever the quotes: (kind of value, value); None for what it cannot read."""
    try:
        override = OverridesParser.create().parse_override(argument)
    except HydraException:
        return None
    return override.value_type, unquoted(override._value)


def unquoted(value: Any) -> Any:
    match value:
        case QuotedString():
            return value.text
        case ChoiceSweep():
            return [unquoted(part) for part in value.list]
        case list():
            return [unquoted(part) for part in value]
        case dict():
            return {key: unquoted(part) for key, part in value.items()}
    return value if isinstance(value, str) else repr(value)  # 1, 1.0 and true are three values


def type_of(schema: Any, key: str) -> Any:
    """The type of a dotted option, None for one that the schema does not have.

    A schema is a dataclass, a dict of names and schemas, or a tuple of schemas of which any may hold.
    """
    head, _, rest = key.partition(".")
    for member in members(schema):
        found = step(member, head)
        if found is not None and (found := type_of(found, rest) if rest else found) is not None:
            return found
    return None


def step(schema: Any, name: str) -> Any:
    """The type of a dataclass's field or of a container's entry."""
    if isinstance(schema, dict):
        return schema.get(name)
    if isinstance(schema, type) and is_dataclass(schema):
        return field_types(schema).get(name)
    return get_args(schema)[-1] if get_origin(schema) in (list, dict) else None


@cache
def field_types(schema: type) -> dict[str, Any]:
    """Name of each field -> its type; `types` in a field's metadata says what Any stands for."""
    hints = get_type_hints(schema)
    return {
        field.name: field.metadata.get("types", hints[field.name])
        for field in fields(schema)  # type: ignore[arg-type]
    }


def members(kind: Any) -> tuple[Any, ...]:
    if isinstance(kind, tuple):
        return kind
    return get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)


def is_textual(kind: Any) -> bool:
    """Whether values of the type are strings, or lists or mappings of them."""
    if get_origin(kind) in (list, dict):
        return is_textual(get_args(kind)[-1])
    return any(
        member is str or (get_origin(member) in (list, dict) and is_textual(member))
        for member in members(kind)
    )
