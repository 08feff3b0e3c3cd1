"""Reads the toolkit's own JSON files and checks them: a truncated, edited or incompatible file raises a RecordError.

The message names the file, the place in it, what was found there and what to do. Values become dataclasses by the
types of their fields.
"""

from __future__ import annotations

import json
import reprlib
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from functools import lru_cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from lediflow.errors import UserError

SCALARS = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
EXPORT_AGAIN = "copy it again, or export the model again: python -m lediflow.checkpoint export RUN"
UNREADABLE = (ValueError, RecursionError)  # errors of JSON readers: for invalid text, and for deep nesting


class RecordError(UserError, ValueError):
    """A file that the toolkit wrote cannot be used. Also a ValueError, for callers of the library."""


class Record(dict[str, Any]):
    """An object of a JSON file; reading a missing key raises a RecordError that names the file.

    It can be built from pairs alone, like any dict, as copies and dataclasses.asdict require.
    """

    def __init__(self, values: Any = (), place: str = "a record", advice: str = "make it again") -> None:
        super().__init__(values)
        self.place, self.advice = place, advice

    def __missing__(self, key: str) -> Any:
        raise RecordError(f"{self.place} has no {key!r}; {self.advice}")


def read_record(
    path: Path, advice: str, types: Mapping[str, Any] | None = None, *, is_complete: bool = False
) -> Record:
    """The object of a JSON file; `types` gives the types of its values: annotations, or a nested mapping of them.

    Keys of `types` may be missing from the file unless `is_complete`. Raises RecordError if the file is missing, cannot
    be read, is not a JSON object, or has values of other types.
    """
    record = as_record(read_json(path, advice), str(path), advice, types)
    for key in (types or {}) if is_complete else ():
        record[key]  # RecordError if it is missing
    return record


def as_record(value: Any, place: str, advice: str, types: Mapping[str, Any] | None = None) -> Record:
    """Convert an object read from JSON, and the objects in it, to Records; checked as by `read_record`."""
    if not isinstance(value, dict):
        raise RecordError(f"{place} holds {shown(value)} where values by name belong; {advice}")
    try:
        checked_types(value, types or {}, "")
    except ValueError as error:
        raise RecordError(f"{place}: {error}; {advice}") from error
    return _recorded(value, place, advice)


def read_json(path: Path, advice: str) -> Any:
    """The value of a JSON file; RecordError if the file cannot be read or is not JSON."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise RecordError(f"{path} cannot be read ({error.strerror or error}); {advice}") from error
    return parse_json(content, str(path), advice)


def object_if_any(path: Path) -> dict[str, Any]:
    """The object in a JSON file of unknown origin; an empty dict if there is no file or no object in it."""
    try:
        found = read_json(path, "")
    except RecordError:
        return {}
    return found if isinstance(found, dict) else {}


def parse_json(content: str | bytes, place: str, advice: str) -> Any:
    """The value of a JSON text; RecordError, naming `place`, if it is not JSON."""
    try:
        return json.loads(content)
    except UNREADABLE as error:
        fault = "is empty" if not content.strip() else f"is incomplete, or not JSON ({error})"
        raise RecordError(f"{place} {fault}; {advice}") from error


def read_dataclass(kind: type[Any], values: Any, place: str) -> Any:
    """Build a dataclass from its fields' values by name; ValueError with the place of the value that does not fit."""
    if not isinstance(values, Mapping):
        raise ValueError(f"{place}: found {shown(values)}; a {kind.__name__} is made of values by name")
    known = {field.name: field for field in fields(kind) if field.init}
    if unknown := sorted(values.keys() - known.keys()):
        raise ValueError(f"{place}: {kind.__name__} with {', '.join(unknown)}: it has {', '.join(known)}")
    needed = [name for name, f in known.items() if f.default is MISSING and f.default_factory is MISSING]
    if missing := [name for name in needed if name not in values]:
        raise ValueError(
            f"{place}: {kind.__name__} without {', '.join(missing)}; it needs {', '.join(needed)}"
        )
    types = _field_types(kind)  # type: ignore[arg-type]
    return kind(**{name: typed(types[name], value, f"{place}.{name}") for name, value in values.items()})


def typed(kind: Any, value: Any, place: str) -> Any:
    """A value read from JSON as the annotation `kind`; ValueError, naming `place`, if it has another type."""
    origin, arguments = get_origin(kind), get_args(kind)
    if is_dataclass(kind):
        return read_dataclass(kind, value, place)  # type: ignore[arg-type]
    if origin in (Union, UnionType):
        if value is None and NoneType in arguments:
            return None
        kinds = [argument for argument in arguments if argument is not NoneType]
        return typed(kinds[0], value, place) if len(kinds) == 1 else value
    if origin in (list, Sequence):
        if not isinstance(value, list | tuple):
            raise ValueError(f"{place}: found {shown(value)}; give a list")
        return [typed(arguments[0], item, f"{place}[{index}]") for index, item in enumerate(value)]
    if origin is dict:
        if not isinstance(value, dict):
            raise ValueError(f"{place}: found {shown(value)} where values by name belong")
        return {key: typed(arguments[1], item, f"{place}.{key}") for key, item in value.items()}
    return _scalar(kind, value, place) if kind in SCALARS else value


def checked_types(values: Mapping[str, Any], types: Mapping[str, Any], place: str) -> None:
    """ValueError for values of other types; a nested mapping checks the object under its key, which may be None."""
    for name in types.keys() & values.keys():
        kind, value, where = types[name], values[name], f"{place}{name}"
        if not isinstance(kind, Mapping):
            typed(kind, value, where)
        elif value is not None:
            checked_types(typed(dict[str, Any], value, where), kind, f"{where}.")


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """The differences of two records as text, `size: 16 then, 12 now; ...`; empty if there are none."""
    changed = (name for name, value in now.items() if before.get(name) != value)
    return "; ".join(f"{name}: {before.get(name)} then, {now[name]} now" for name in changed)


def leaves(node: Any, key: str = "", *, in_lists: bool = False) -> Iterator[tuple[str, Any]]:
    """Each value inside nested mappings, with its dotted key: `stage.cap`. `in_lists`: inside lists, too, by index."""
    if isinstance(node, Mapping):
        items: Iterable[tuple[Any, Any]] = node.items()
    elif in_lists and isinstance(node, list):
        items = enumerate(node)
    else:
        yield key, node
        return
    for name, value in items:
        yield from leaves(value, f"{key}.{name}" if key else str(name), in_lists=in_lists)


def shown(value: Any) -> str:
    """A value for a message, shortened if it is long."""
    return reprlib.repr(value)


def one_line(error: Exception, most: int = 300) -> str:
    """The message of another library's error in one line of at most `most` characters."""
    text = " ".join(str(error).split())
    return text if len(text) <= most else f"{text[:most]}..."


def _scalar(kind: type[Any], value: Any, place: str) -> Any:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind is float and is_number:
        return value
    if kind is int and is_number and value == value and abs(value) != float("inf") and int(value) == value:
        return int(value)
    if kind in (str, bool) and isinstance(value, kind):
        return value
    raise ValueError(f"{place}: found {shown(value)}, not {SCALARS[kind]}")


@lru_cache
def _field_types(kind: Hashable) -> dict[str, Any]:
    return get_type_hints(kind)


def _recorded(value: Any, place: str, advice: str) -> Any:
    if isinstance(value, dict):
        return Record(
            {key: _recorded(item, f"{place}, {key}", advice) for key, item in value.items()}, place, advice
        )
    if isinstance(value, list) and any(isinstance(item, dict) for item in value):
        return [_recorded(item, f"{place}[{index}]", advice) for index, item in enumerate(value)]
    return value
