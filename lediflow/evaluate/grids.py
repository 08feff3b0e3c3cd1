"""Quality against cost over solver x steps x temperature, of one or several runs."""

from __future__ import annotations

from typing import Any

from lediflow.evaluate.session import Session


def evaluate_grid(session: Session) -> dict[str, Any]:
    raise NotImplementedError
