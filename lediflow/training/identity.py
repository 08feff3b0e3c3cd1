"""What a continued run must share with its start, and where two such records differ."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def differences(found: dict[str, Any], asked: dict[str, Any]) -> list[str]:
    """Each differing value as a phrase: `stage.cap: 10.0, now 5.0`. Empty: the same run."""
    then, now = dict(_dotted(found)), dict(_dotted(asked))
    names = sorted(then.keys() | now.keys())
    return [
        f"{name}: {then.get(name, 'nothing')}, now {now.get(name, 'nothing')}"
        for name in names
        if then.get(name) != now.get(name)
    ]


def _dotted(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(node, (dict, list)):
        for key, value in node.items() if isinstance(node, dict) else enumerate(node):
            yield from _dotted(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, node
