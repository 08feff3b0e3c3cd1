"""The engines by name, and what is known of each before it is built.

Configuration and the requests of jobs read this table; none of them looks at the name of an engine.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lediflow.engine.local import LocalEngine
from lediflow.engine.protocol import Engine
from lediflow.errors import UserError


@dataclass(frozen=True, kw_only=True)
class EngineKind:
    """An engine, as the rest of the toolkit sees it."""

    # builds it from the arguments of BaseEngine (lediflow/engine/local.py); every rank calls it
    build: Callable[..., Engine]
    # whether it trains in one process only
    is_one_process: bool = False


def build_deepspeed_engine(*arguments: Any, **options: Any) -> Engine:
    """DeepSpeed's engine, imported here because that takes seconds."""
    from lediflow.engine.deepspeed import DeepSpeedEngine

    return DeepSpeedEngine(*arguments, **options)


# by name, in the order of messages; a new engine is one entry
ENGINES: dict[str, EngineKind] = {
    # plain PyTorch, the reference
    "local": EngineKind(build=LocalEngine, is_one_process=True),
    # ZeRO over any number of ranks
    "deepspeed": EngineKind(build=build_deepspeed_engine),
}


def engine_kind(name: str) -> EngineKind:
    """The engine of this name; UserError, with the names that are known, if there is none."""
    if name not in ENGINES:
        known = " or ".join(f"engine={known}" for known in ENGINES)
        raise UserError(f"engine.name={name!r} is unknown; use {known}")
    return ENGINES[name]
