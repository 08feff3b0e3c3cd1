"""How well the learned prior knows what it does not know: its diagnostics on real images."""

from __future__ import annotations

from typing import Any

from lediflow.evaluate.session import Session


def evaluate_prior(session: Session) -> dict[str, Any]:
    raise NotImplementedError
