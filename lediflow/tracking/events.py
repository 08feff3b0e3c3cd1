"""An event as it stands in the log: one JSON object on one line.

    {"time": "2026-03-01T09:30:00.125+00:00", "event": "train", "images_seen": 4096, "loss": 0.412}

The log stays strict JSON: a loss that is not a number is written as the string "nan", which `float` reads.
"""

import json
import math
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

Event = dict[str, Any]
TURNED = "held_out_turned"  # the held-out loss has turned; once in a run, with a message


def event_line(event: str, images_seen: int, values: dict[str, Any]) -> str:
    """One line of the log, newline included."""
    time = datetime.now(UTC).isoformat(timespec="milliseconds")
    plain_values = {key: plain(value) for key, value in values.items()}
    return json.dumps({"time": time, "event": event, "images_seen": images_seen, **plain_values}) + "\n"


def plain(value: Any) -> Any:
    """The value as JSON knows it; tensors and arrays become Python numbers, or lists of them, paths become strings."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return str(value)


def parse_event(line: str) -> Event | None:
    """The event on a line of the log, or None where a crash tore the line."""
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return event if isinstance(event, dict) and is_whole(event) else None


def is_whole(event: Event) -> bool:
    """Whether an event has a name, a place on the image clock and a time that can be read."""
    images_seen = event.get("images_seen")
    if (
        not isinstance(event.get("event"), str)
        or type(images_seen) is not int
        or not 0 <= images_seen < 2**63
    ):
        return False
    try:
        return bool(datetime.fromisoformat(event["time"]))
    except (LookupError, ValueError, TypeError):
        return False


def number(value: Any) -> float | None:
    """The value as a number, "nan" and "inf" included, or None if it is something else."""
    if isinstance(value, str) and value not in ("nan", "inf", "-inf"):
        return None
    try:
        return float(value) if isinstance(value, (int, float, str)) else None
    except OverflowError:  # an integer of hundreds of digits
        return None


def numbers(key: str, value: Any) -> Iterator[tuple[str, float]]:
    """Every number in a value under a name of its own: those of lists and dicts are `key/0`, `key/name`."""
    if isinstance(value, (dict, list)):
        for name, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from numbers(f"{key}/{name}", item)
    elif (known := number(value)) is not None:
        yield key, known
