"""From JSON to specifications: what cannot be read is refused, with the place where it stands."""

import json
from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any

from lediflow.nn.specs import LevelSpec


def parsed(text: str, place: str, advice: str) -> Any:
    """The value of a JSON text."""
    try:
        return json.loads(text)
    except ValueError as error:
        raise ValueError(f"{place} is not whole, or no JSON ({error}); {advice}") from error


def read_dataclass(kind: type[Any], values: Any, place: str) -> Any:
    """A dataclass from the values of its fields; unknown and missing ones are named."""
    if not isinstance(values, Mapping):
        raise ValueError(f"{place}: found {values!r}; a {kind.__name__} is made of values by name")
    known = {field.name: field for field in fields(kind)}
    if strangers := sorted(values.keys() - known.keys()):
        raise ValueError(f"{place}: {kind.__name__} with {', '.join(strangers)}: it has {', '.join(known)}")
    needed = [name for name, f in known.items() if f.default is MISSING and f.default_factory is MISSING]
    if missing := [name for name in needed if name not in values]:
        raise ValueError(
            f"{place}: {kind.__name__} without {', '.join(missing)}; it needs {', '.join(needed)}"
        )
    return kind(**values)


def read_levels(values: Any, place: str) -> list[LevelSpec]:
    """The levels of a model, fine to coarse."""
    if not isinstance(values, list | tuple):
        raise ValueError(f"{place}: found {values!r}; give a list with one entry per level")
    return [read_dataclass(LevelSpec, level, f"{place}[{index}]") for index, level in enumerate(values)]
