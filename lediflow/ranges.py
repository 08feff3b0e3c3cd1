"""The range of a number, declared with its field and checked wherever the dataclass is used.

    count: int = bounded(64, at_least=1)  # how many images

`check_ranges(config)` checks a dataclass and those nested in it. NaN is always out of range, infinity unless the field
allows it, and a list's range applies to each of its entries.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from functools import cache
from numbers import Integral, Real
from typing import Any, cast, get_type_hints

from lediflow.errors import UserError

KEY = "range"  # in a field's metadata
LARGEST_SEED = 2**64 - 1  # seeds are words of 64 bits
LARGEST_INTEGER = 2**63 - 1  # of an int64 tensor: the limit of integers that have no upper limit of their own


class OutOfRangeError(UserError, ValueError):
    """A number outside of the range of its field; the message begins with the field's name."""


@dataclass(frozen=True, kw_only=True)
class Range:
    """Limits of a number, or of each number in a list; a number without limits must be finite."""

    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None
    or_infinity: bool = False  # positive infinity is allowed as well
    is_filled: bool = False  # of a list: at least one entry
    is_distinct: bool = False  # of a list: no entry twice
    entries: int | None = None  # of a list: its exact length
    or_word: str | None = None  # a word that is allowed instead of a number, such as auto

    def holds(self, value: float, is_whole: bool) -> bool:
        """Whether a number is inside; NaN never is."""
        if value == math.inf and self.or_infinity:
            return True
        if isinstance(value, Integral):
            is_sane = self.at_most is not None or abs(int(value)) <= LARGEST_INTEGER
        else:
            is_sane = not is_whole and math.isfinite(value)
        return (
            is_sane
            and (self.at_least is None or value >= self.at_least)
            and (self.above is None or value > self.above)
            and (self.at_most is None or value <= self.at_most)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        limits = {
            "at least": self.at_least,
            "above": self.above,
            "at most": self.at_most,
            "below": self.below,
        }
        words = " and ".join(f"{word} {_text(limit)}" for word, limit in limits.items() if limit is not None)
        words = (words or "finite") + (", or inf" if self.or_infinity else "")
        words += f", or {self.or_word}" if self.or_word else ""
        kinds = (("filled", self.is_filled), ("distinct", self.is_distinct))
        count = [f"{self.entries} values"] if self.entries else []
        return ", ".join([words, *count, *(kind for kind, holds in kinds if holds)])


def bounded(
    default: Any = dataclasses.MISSING,
    *,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
    or_infinity: bool = False,
    is_filled: bool = False,
    is_distinct: bool = False,
    entries: int | None = None,
    or_word: str | None = None,
    default_factory: Any = dataclasses.MISSING,
) -> Any:
    """A dataclass field with a range (see Range). Without a default the field is required."""
    limits = Range(
        at_least=at_least,
        above=above,
        at_most=at_most,
        below=below,
        or_infinity=or_infinity,
        is_filled=is_filled,
        is_distinct=is_distinct,
        entries=entries,
        or_word=or_word,
    )
    # a word that is allowed besides numbers needs no quotes on a command line: see lediflow.config.composition.literal
    options: dict[str, Any] = {"metadata": {KEY: limits} | ({"types": float} if or_word else {})}
    if default_factory is not dataclasses.MISSING:
        options["default_factory"] = default_factory
    elif default is not dataclasses.MISSING:
        options["default"] = default
    return dataclasses.field(**options)


def seed_field() -> Any:
    """A field for a random seed: any word of 64 bits."""
    return bounded(0, at_least=0, at_most=LARGEST_SEED)


def range_of(kind: Any, name: str) -> Range | None:
    """The range of a dataclass's field; None if it has none."""
    return {field.name: field for field in dataclasses.fields(kind)}[name].metadata.get(KEY)


def check_ranges(config: Any, prefix: str = "") -> None:
    """Raise OutOfRangeError for the first number that is out of its range, here or in a nested dataclass or list.

    `prefix` is put before the fields' names in the message, such as "data.".
    """
    for fault in faults(config, prefix):
        raise OutOfRangeError(fault)


def faults(config: Any, prefix: str = "") -> Iterator[str]:
    """A message for each number that is out of its range."""
    kind: Any = type(config)
    for name, limits, is_whole in _fields(kind):
        value = getattr(config, name)
        if limits is not None:
            yield from _faults_of(prefix + name, value, limits, is_whole)
        for key, part in _parts(prefix + name, value):
            yield from faults(part, f"{key}.")


@cache
def _fields(kind: Hashable) -> tuple[tuple[str, Range | None, bool], ...]:
    """(name, range, whether only whole numbers are allowed) for every field."""
    assert isinstance(kind, type) and dataclasses.is_dataclass(kind)
    hints = get_type_hints(kind)
    return tuple(
        (field.name, field.metadata.get(KEY), "float" not in str(hints[field.name]))
        for field in dataclasses.fields(kind)
    )


def _parts(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    """The dataclasses in a field's value, with their keys."""
    if dataclasses.is_dataclass(value):
        yield key, value
    elif isinstance(value, list | tuple):
        yield from (
            (f"{key}[{index}]", part) for index, part in enumerate(value) if dataclasses.is_dataclass(part)
        )


def _faults_of(key: str, value: Any, limits: Range, is_whole: bool) -> Iterator[str]:
    if not isinstance(value, list | tuple):
        yield from _fault(key, value, limits, is_whole)
        return
    if limits.is_filled and not value:
        yield f"{key}=[] is empty; give at least one value"
    if limits.entries is not None and len(value) != limits.entries:
        yield f"{key}={list(value)} has length {len(value)}; give {limits.entries} values"
    if (
        limits.is_distinct
        and (twice := next((entry for entry in value if value.count(entry) > 1), None)) is not None
    ):
        yield f"{key}={list(value)} has {twice} more than once; give each value once"
    for index, entry in enumerate(value):
        yield from _fault(f"{key}[{index}]", entry, limits, is_whole)


def _fault(key: str, value: Any, limits: Range, is_whole: bool) -> Iterator[str]:
    # not set, or a missing required value, which is reported elsewhere
    if value in (None, "???", limits.or_word):
        return
    if isinstance(value, bool) or not isinstance(value, Real):
        yield f"{key}={value!r} must be a {'whole ' if is_whole else ''}number, {limits}"
    elif not limits.holds(cast(float, value), is_whole):
        words = str(dataclasses.replace(limits, is_filled=False, is_distinct=False, entries=None))
        if is_whole and not isinstance(value, Integral):
            words = f"a whole number, {words}"
        elif isinstance(value, Integral) and limits.at_most is None and abs(int(value)) > LARGEST_INTEGER:
            words += f" and at most {LARGEST_INTEGER}"
        yield f"{key}={value} must be {words}"


def _text(limit: float) -> str:
    return "2^64 - 1" if limit == LARGEST_SEED else f"{limit:g}" if abs(limit) < 1e6 else str(limit)
