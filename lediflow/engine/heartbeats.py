"""Where each rank is, as small files in the run folder: `heartbeats/<rank>.json`."""

from __future__ import annotations

import enum


class Phase(enum.StrEnum):
    STARTING = "starting"
    DATA = "data"
    STEP = "step"
    SAVING = "saving"
    VALIDATING = "validating"
    FINISHING = "finishing"
