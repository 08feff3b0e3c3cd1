"""Takes string options on a command line literally; only other options are parsed by Hydra's grammar.

`output=2024_05_03`, `source=/data/ü (1)` and `run=runs/a,train.images=5` name folders. The dataclasses of the commands
say which options are strings. A string that Hydra would parse differently is quoted before Hydra sees it. Exceptions:

    null         null, if the option may be null; for a folder of that name write ./null
    "..."        quotes around the whole value are left to Hydra
    ${...}       refers to another option, as everywhere in the configuration; for the characters write \\${
    a,b          two values in a sweep (-m, lediflow.submit), unless a file or folder has this name
    choice(...)  and Hydra's other sweep functions are left to Hydra in a sweep
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
WHOLE = re.compile(r"[+-]?\d+")
SWEEPS = re.compile(r"(choice|range|interval|glob|shuffle|sort|tag)\s*\(.*\)", re.DOTALL)
CLOSING = {"[": "]", "{": "}", "(": ")"}
MULTIRUN = ("-m", "--multirun")


def is_multirun(arguments: Sequence[str]) -> bool:
    return any(argument in MULTIRUN or argument.lower() == "hydra.mode=multirun" for argument in arguments)


def literal_arguments(
    arguments: Sequence[str], schemas: Sequence[Any], *, is_sweep: bool | None = None
) -> list[str]:
    """Quote the string values that Hydra's grammar would not take literally.

    `schemas` are dataclasses with the options; the first one that has a key decides its type. Raises UserError for
    values with a line break or with bytes that are not UTF-8.
    """
    sweeps = is_multirun(arguments) if is_sweep is None else is_sweep
    return [literal_argument(argument, schemas, sweeps) for argument in arguments]


def literal_argument(argument: str, schemas: Sequence[Any], is_sweep: bool) -> str:
    """One argument, quoted if needed; unchanged if Hydra reads it as intended."""
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
    """Reject a value without an option, bytes that are not UTF-8, and line breaks."""
    if argument.startswith("="):
        raise UserError(f"{argument}: there is no option before the =; options are written key=value")
    check_utf8(argument)
    if len(argument.splitlines()) > 1 or argument.endswith(("\n", "\r")):
        raise UserError(f"{argument!r}: a value cannot hold a line break; leave it out")


def check_utf8(argument: str) -> None:
    """Reject bytes that are not UTF-8: JSON records and weight files cannot store such a name."""
    if any("\ud800" <= character <= "\udfff" for character in argument):
        raise UserError(
            f"{argument!a}: the name holds bytes that are not UTF-8; rename the file or folder, or give a link to "
            "it with another name"
        )


def literal_value(value: str, kind: Any, is_sweep: bool, key: str) -> str:
    """A string, or a list or mapping of strings, written in Hydra's grammar according to the option's type."""
    if value.lower() == "null" and type(None) in members(kind):
        return value
    container = next((member for member in members(kind) if get_origin(member) in (list, dict)), None)
    if container is not None:
        several = [part.strip() for part in split(value)] if is_sweep else [value]
        return ",".join(
            literal_container(part, container) if part[:1] in CLOSING else part for part in several
        )
    if is_sweep and SWEEPS.fullmatch(value):
        return literal_choices(value)
    is_one = not is_sweep or os.path.lexists(value.replace(r"\${", "${"))
    parts = [value] if is_one else split(value)
    if len(parts) > 1:
        parts = [part.strip() for part in parts]  # as Hydra does
        check_parts(key, value, parts)
    return ",".join(quoted_once(part) for part in parts)


def check_parts(key: str, value: str, parts: Sequence[str]) -> None:
    """Reject a swept value that is more likely one name with commas, such as a folder of an older sweep."""
    if any("=" in part and not QUOTED.fullmatch(part) for part in parts):
        one, several = shell_override(key, value), shell_override(key, *parts)
        raise UserError(
            f"{key}={value}: a comma separates the values of a sweep, and nothing has this whole name. For one name "
            f"write {one}, for {len(parts)} values {several}"
        )


def literal_choices(value: str) -> str:
    """Rewrite choice(a,b) as quoted a,b, because Hydra drops quotes inside functions; leave other functions alone."""
    name, _, rest = value.partition("(")
    inner = rest.rstrip()[:-1]
    if name.strip() != "choice":
        return value
    return ",".join(quoted_once(part.strip()) for part in split(inner))


def literal_container(value: str, kind: Any) -> str:
    """[a,b] or {a:b} with their strings quoted; other values and unclosed brackets are returned unchanged."""
    opening, inner = value[0], value[1:-1]
    if value[-1:] != CLOSING.get(opening) or (opening == "{") != (get_origin(kind) is dict):
        return value
    (*_, entry) = get_args(kind)
    parts = [part.strip() for part in split(inner)] if inner.strip() else []
    if opening == "[":
        return f"[{','.join(literal_entry(part, entry) for part in parts)}]"
    pairs = [part.partition(":") for part in parts]
    return "{" + ",".join(f"{name}:{literal_entry(text.strip(), entry)}" for name, _, text in pairs) + "}"


def literal_entry(value: str, kind: Any) -> str:
    """One entry of a list or mapping, quoted if its type is a string, and not a number where it may be one."""
    if not is_textual(kind) or (int in members(kind) and WHOLE.fullmatch(value)):
        return value
    return (
        literal_container(value, kind) if get_origin(kind) in (list, dict) and value else quoted_once(value)
    )


def split(text: str) -> list[str]:
    """Split at commas outside of quotes, brackets and ${...}; a quote opens only where a value may begin."""
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
    """The value in quotes, unless it already is."""
    return value if QUOTED.fullmatch(value) else quoted(value)


def shell_override(key: str, *values: str) -> str:
    """An override with these string values, quoted for a shell."""
    return shlex.quote(
        f"{key}={','.join(QuotedString(value, Quote.double).with_quotes() for value in values)}"
    )


def quoted(value: str) -> str:
    """A quoted string in Hydra's grammar; `${...}` in it still refers to an option."""
    return QuotedString(value, Quote.single).with_quotes()


def override_value(text: str) -> str:
    """Any text, such as a path, as a value in Hydra's grammar that is read back as exactly this text."""
    return quoted(without_references(text))


def double_quoted(text: str) -> str:
    """Like `override_value`, in the kind of quotes that a shell does not quote again."""
    return QuotedString(without_references(text), Quote.double).with_quotes()


def without_references(text: str) -> str:
    """The text with `${` escaped, so that OmegaConf does not interpolate it."""
    return re.sub(r"(\\*)\$\{", lambda found: found[1] * 2 + r"\${", text)


def is_readable(argument: str) -> bool:
    """Whether Hydra's grammar can parse the argument."""
    return meaning(argument) is not None


@cache
def meaning(argument: str) -> tuple[Any, Any] | None:
    """(kind of value, value without quotes) as Hydra's grammar parses it; None if it cannot."""
    try:
        override = OverridesParser.create().parse_override(argument)
    except HydraException:
        return None
    return override.value_type, unquoted(override._value)


def unquoted(value: Any) -> Any:
    """A parsed value with its quoted strings as plain ones; numbers and booleans become text."""
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
    """The type of a dotted option; None if the schema does not have it.

    A schema is a dataclass, a dict from names to schemas, or a tuple of alternative schemas.
    """
    head, _, rest = key.partition(".")
    for member in members(schema):
        found = step(member, head)
        if found is not None and (found := type_of(found, rest) if rest else found) is not None:
            return found
    return None


def step(schema: Any, name: str) -> Any:
    """The type of one field of a dataclass, or of an entry of a container; None if there is none."""
    if isinstance(schema, dict):
        return schema.get(name)
    if isinstance(schema, type) and is_dataclass(schema):
        return field_types(schema).get(name)
    return get_args(schema)[-1] if get_origin(schema) in (list, dict) else None


@cache
def field_types(schema: type) -> dict[str, Any]:
    """Field name -> type; for a field of type Any, the alternatives in its metadata under `types`."""
    hints = get_type_hints(schema)
    return {
        field.name: field.metadata.get("types", hints[field.name])
        for field in fields(schema)  # type: ignore[arg-type]
    }


def members(kind: Any) -> tuple[Any, ...]:
    """The alternatives of a union, of a tuple of types or of a function that returns one; otherwise the type alone."""
    if isinstance(kind, types.FunctionType):
        kind = kind()
    if isinstance(kind, tuple):
        return kind
    return get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)


def is_textual(kind: Any) -> bool:
    """Whether values of the type are strings, or lists or mappings of strings."""
    if get_origin(kind) in (list, dict):
        return is_textual(get_args(kind)[-1])
    return any(
        member is str or (get_origin(member) in (list, dict) and is_textual(member))
        for member in members(kind)
    )
