"""The options that a continued run must have in common with its start, and where two such records differ."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lediflow.stages.flow import AUTO

WIDTH, SCALE = "prior_widening", "prior_scale"  # of the options of stage=flow


def differences(found: dict[str, Any], asked: dict[str, Any]) -> list[str]:
    """Each differing value as a phrase: `stage.cap: 10.0, now 5.0`. Empty: the same run."""
    then, now = dict(_dotted(found)), dict(_dotted(asked))
    names = sorted(then.keys() | now.keys())
    return [
        f"{name}: {then.get(name, 'nothing')}, now {now.get(name, 'nothing')}"
        for name in names
        if then.get(name) != now.get(name)
    ]


def with_recorded_width(found: dict[str, Any], asked: dict[str, Any]) -> dict[str, Any]:
    """The options `asked` of a run, without the prior's width where its record `found` does not name one.

    Such a run began with 0, when 0 was the default and was not recorded. Asked for 0, or for today's default, it
    continues with 0 and an unscaled prior. `prior_scale=auto` agrees with the scale that a run began with.
    """
    then, now = found.get("stage"), asked.get("stage")
    if not isinstance(then, dict) or not isinstance(now, dict):
        return asked
    options = dict(now)
    if WIDTH not in then and now.get(WIDTH) in (0, AUTO):
        for name in (WIDTH, SCALE):
            options.pop(name, None)
    elif now.get(SCALE) == AUTO:
        del options[SCALE]
        options |= {SCALE: then[SCALE]} if SCALE in then else {}
    return asked | {"stage": options}


def _dotted(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(node, (dict, list)):
        for key, value in node.items() if isinstance(node, dict) else enumerate(node):
            yield from _dotted(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, node
