"""The table of goals for speed: what was asked of one H200, what tools/bench measured, and whether it is enough."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from lediflow.errors import UserError
from pages.markdown import digits, table
from pages.stored import Results, bench, results

HEADS = ["on one H200", "goal", "measured", ""]
LEDIFLOW, SDV, RGB, SMALL = "LeDiFlow", "paper_sdv", "paper_rgb", "campaign64"


class Goal(NamedTuple):
    """A limit for a column of the first row in a results file that has the wanted values."""

    words: str
    file: str
    wanted: Mapping[str, Any]
    column: str
    limit: float
    unit: str = ""
    is_least: bool = False  # the limit is the least that is wanted, else the most
    per: str = ""  # column to divide by

    def found(self, root: Path) -> float | None:
        """The measured number; None where nothing has been measured. UserError for a file without such a row."""
        path = root / bench(self.file)
        if not path.is_file():
            return None
        for row in results(path)["rows"]:
            if self.wanted.items() <= row.items() and self.column in row:
                return float(row[self.column] / (row[self.per] if self.per else 1))
        raise UserError(f"{path} has no row with {dict(self.wanted)} and {self.column!r}: measure it again")

    def line(self, root: Path) -> list[str]:
        sign = "at least" if self.is_least else "at most"
        found = self.found(root)
        goal = f"{sign} {digits(self.limit)}{self.unit}"
        if found is None:
            return [self.words, goal, "not measured", ""]
        is_met = found >= self.limit if self.is_least else found <= self.limit
        return [self.words, goal, f"{digits(found)}{self.unit}", "met" if is_met else "missed"]


def ms(words: str, file: str, wanted: Results, column: str, limit: float, per: str = "") -> Goal:
    return Goal(words, file, wanted, column, limit, " ms", per=per)


def images(words: str, file: str, wanted: Results, limit: float) -> Goal:
    return Goal(words, file, wanted, "img/s", limit, " img/s", is_least=True)


def chain(part: str, batch: int, solver: str = "midpoint", nfe: int = 4) -> Results:
    return {"method": LEDIFLOW, "part": part, "batch": batch, "solver": solver, "NFE": nfe}


def in_float8(model: str) -> Results:
    return {"model": model, "precision": "float8"} | chain("flow", 64)


def step(model: str, **more: Any) -> Results:
    return {"model": model, **more}


ONE, BATCH, JUMP = "bench_sampling_one_h200", "bench_sampling_batch_h200", "bench_sampling_jump_h200"
RGB_BATCH, STEPS = "bench_sampling_rgb_h200", "bench_steps_h200"
RGB_STEPS, SDV_STEPS = "bench_training_rgb_h200", "bench_training_deepspeed_h200"
FLOAT8 = "bench_sampling_float8_h200"
AUXILIARY = {"stage": "auxiliary", "batch": 512, "passes": "recorded"}
LEARNED, GAUSSIAN = (
    {"stage": "flow", "prior": prior, "passes": "recorded"} for prior in ("learned", "gaussian")
)

GOALS = (
    ms("SDV, 1 image, 4 evaluations: chain", ONE, chain("chain", 1), "p50 ms", 5.0),
    ms("SDV, 1 image, 4 evaluations: flow alone", ONE, chain("flow", 1), "p50 ms", 2.2),
    ms("SDV, 1 image, one call of each flow map: chain", JUMP, chain("chain", 1, "jump", 1), "p50 ms", 1.5),
    ms("SDV, 4 evaluations, each of 64 images: chain", BATCH, chain("chain", 64), "ms/img", 1.0),
    ms("SDV, 4 evaluations, each of 64 images: flow", BATCH, chain("flow", 64), "ms/img", 0.75),
    ms("the same flow in float8", FLOAT8, in_float8(SDV), "ms/img", 0.75),
    ms("SDV, 1 evaluation, each of 64 images", BATCH, chain("flow", 64), "ms/img", 0.2, per="NFE"),
    ms("the same in float8", FLOAT8, in_float8(SDV), "ms/img", 0.2, per="NFE"),
    ms("RGB, 1 evaluation, each of 64 images", RGB_BATCH, chain("flow", 64), "ms/img", 0.35, per="NFE"),
    ms("the same in float8", FLOAT8, in_float8(RGB), "ms/img", 0.35, per="NFE"),
    images("training step, SDV flow, 64 images", SDV_STEPS, step(SDV, engine="local"), 1700),
    images("training step, RGB flow, 32 images", RGB_STEPS, step(RGB), 1050),
    images("training step, campaign64 auxiliary model", STEPS, step(SMALL, **AUXILIARY), 19_400),
    images("training step, campaign64 flow, LeDiFlow", STEPS, step(SMALL, **LEARNED), 12_300),
    images("training step, campaign64 flow, FM", STEPS, step(SMALL, **GAUSSIAN), 15_200),
    Goal(
        "share of the GPU's peak, LeDiFlow", STEPS, step(SMALL, **LEARNED), "mfu %", 30, " %", is_least=True
    ),
    Goal("SDV step, ZeRO 1: longer than local by", SDV_STEPS, {"engine": "deepspeed:1"}, "longer %", 5, " %"),
    Goal("SDV step, ZeRO 2: longer than local by", SDV_STEPS, {"engine": "deepspeed:2"}, "longer %", 5, " %"),
)


def block(root: Path) -> str:
    """The table of all goals."""
    return "\n".join(table(HEADS, [goal.line(root) for goal in GOALS]))
