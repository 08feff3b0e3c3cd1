"""Where the time of a training step goes, by part of the loop.

The real loop trains on toy pictures (or on data.path=SHARDS) without saving or logging. Its functions are replaced by
timed ones; a part's time is without that of the parts inside it, and `rest` is what no part has. On a GPU this is the
time of the host, which launches kernels and should wait nowhere but in `data` and in `checks`, one step behind the
device. Ten more steps under torch.profiler count each part's `launches` of kernels and `waits` for the device, and
sum the duration of its kernels (`device ms`): where `device ms` of all parts is less than `ms`, the GPU idles.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from common import Row, wait_for

from lediflow.config.building.inputs import open_inputs
from lediflow.config.building.prior_width import settle_width
from lediflow.config.building.run import build_run
from lediflow.config.composition.checks import typed
from lediflow.config.composition.compose import composed
from lediflow.engine import deepspeed, local
from lediflow.engine.lease import NoLease
from lediflow.engine.ranks import find_ranks
from lediflow.engine.stop import StopRequest
from lediflow.run_folder import RunFolder
from lediflow.train import run as run_command
from lediflow.training import loop
from lediflow.training.state import Training

WARM_UP, PROFILED = 20, 10  # steps before the measured ones, and after them
PICTURES = 2_000
NEVER = 2**60  # images between two records or checkpoints
# in the order of a step
PARTS = ("data", "batch", "loss", "forward", "backward", "clip", "optimizer", "averages", "checks", "records")
RANGE = "part: "  # prefix of a part's name in the profiler's trace


class Meter:
    """Adds up the time of each part over steps; the time of an inner part does not count for the outer one."""

    def __init__(self, steps: int, device: torch.device, trace: Path) -> None:
        self.steps, self.device, self.trace = steps, device, trace
        self.done = 0
        self.seconds: dict[str, float] = defaultdict(float)
        self.open: list[str] = []  # the parts that the code is inside of, the innermost last
        self.since = time.perf_counter()
        self.began = 0.0
        self.step_seconds = 0.0
        self.profiler: Any = None
        self.replaced: list[tuple[Any, str, Any]] = []

    def watch(self, owner: Any, name: str, part: str) -> None:
        """Replace a function of an object or module by one whose time counts for `part`."""
        self.replace(owner, name, self.timed(getattr(owner, name), part))

    def replace(self, owner: Any, name: str, by: Any) -> None:
        self.replaced.append((owner, name, getattr(owner, name)))
        setattr(owner, name, by)

    def restore(self) -> None:
        """Put the replaced functions back."""
        for owner, name, before in reversed(self.replaced):
            setattr(owner, name, before)

    def timed(self, call: Callable[..., Any], part: str) -> Callable[..., Any]:
        def run(*arguments: Any, **options: Any) -> Any:
            self._turn()
            self.open.append(part)
            try:
                if self.profiler is None:
                    return call(*arguments, **options)
                with torch.profiler.record_function(RANGE + part):
                    return call(*arguments, **options)
            finally:
                self._turn()
                self.open.pop()

        return run

    def end_step(self) -> None:
        """Count a step; begin measuring after the warm-up, then profiling."""
        self.done += 1
        if self.done == WARM_UP:
            wait_for(self.device)
            self.seconds.clear()
            self.began = self.since = time.perf_counter()
        elif self.done == WARM_UP + self.steps:
            wait_for(self.device)
            self._turn()
            self.step_seconds = (time.perf_counter() - self.began) / self.steps
            self.measured = {part: spent / self.steps for part, spent in self.seconds.items()}
            if self.device.type == "cuda":
                self.profiler = torch.profiler.profile()
                self.profiler.start()
        elif self.profiler is not None and self.done == WARM_UP + self.steps + PROFILED:
            wait_for(self.device)
            self.profiler.stop()
            self.profiler.export_chrome_trace(str(self.trace))

    def _turn(self) -> None:
        """Count the time since the last turn for the part that the code is inside of."""
        now = time.perf_counter()
        if self.open:
            self.seconds[self.open[-1]] += now - self.since
        self.since = now


class Watched:
    """A module that a stage calls, timed; everything else of it is the module's."""

    def __init__(self, module: torch.nn.Module, meter: Meter) -> None:
        self._module, self._call = module, meter.timed(module, "forward")

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return self._call(*arguments, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


def watch(run: Training, meter: Meter) -> None:
    """Replace the functions of a step by timed ones."""
    engine, loss, end_step = run.engine, run.stage.loss, run.recorder.end_step

    def end() -> float:
        seconds: float = meter.timed(end_step, "records")()
        meter.end_step()
        return seconds

    def watched_loss(module: Any, *arguments: Any) -> Any:
        return loss(Watched(module, meter), *arguments)  # type: ignore[arg-type]

    meter.replace(run.stage, "loss", meter.timed(watched_loss, "loss"))
    meter.replace(run.recorder, "end_step", end)
    watched: list[tuple[Any, str, str]] = [
        (run.stream, "next_stored", "data"),
        (run.stream, "next_batch", "batch"),
        (engine, "backward", "backward"),
        (local, "clip_gradient", "clip"),
        (deepspeed, "clip_gradient", "clip"),
        (engine, "_update_weights", "optimizer"),
        (engine.averages, "update", "averages"),  # type: ignore[attr-defined]
        (loop, "copied_to_host", "checks"),
        (loop, "agree", "checks"),
        (run.bad_steps, "note", "checks"),
        (run.recorder, "add", "records"),
    ]
    for owner, name, part in watched:
        meter.watch(owner, name, part)


def breakdown(overrides: list[str], steps: int) -> list[Row]:
    """A row for each part of a step, with milliseconds per step, and a last one for all of them."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        chosen = [
            "experiment=smoke", f"synthetic_images={PICTURES}", f"data.path={folder}/shards",
            "data.held_out_fraction=0", "tracking.progress=false", f"parent={folder}/auxiliary",
            f"train.checkpoint.every_images={NEVER}", f"train.log_every_images={NEVER}", *overrides,
        ]  # fmt: skip
        if any(override.startswith("data.path=") for override in overrides):
            chosen.append("synthetic_images=0")
        if "stage=auxiliary" not in chosen and "prior=gaussian" not in chosen:
            train_parent(chosen, folder)
        meter, device = measure(chosen, folder, steps)
        if device.type == "cpu":
            return rows_of(meter, {})
        events = json.loads(meter.trace.read_text())["traceEvents"]
        return rows_of(meter, counts_by_part(events, PROFILED))


def train_parent(chosen: list[str], folder: Path) -> None:
    """An auxiliary model of one step, for stages that need one."""
    one_step = ["stage=auxiliary", "train.images=1", "engine.compile=false", f"run={folder}/auxiliary"]
    run_command(composed("train", [*chosen, *one_step]))


def train(run: Training) -> None:
    """The loop, without the end of a run, which saves."""
    run.recorder.begin()
    while not run.is_over:
        step = loop.take_step(run)
        loop.report_bad_step(run, run.bad_steps.note(step))
        loop.agree(run)


def measure(chosen: list[str], folder: Path, steps: int) -> tuple[Meter, torch.device]:
    """Train for as many steps as are measured."""
    command = typed(composed("train", [*chosen, f"run={folder}/run"]))
    ranks = find_ranks()
    inputs = open_inputs(command, ranks)
    RunFolder(folder / "run").create()
    with StopRequest() as stop:
        run = build_run(command, inputs, ranks, stop, NoLease())
        settle_width(run, None, command, inputs, RunFolder(folder / "run"))
        run.clock.images = (WARM_UP + steps + PROFILED) * run.clock.global_batch
        run.held_out.validation = None
        meter = Meter(steps, run.engine.device, folder / "trace.json")
        watch(run, meter)
        try:
            train(run)
        finally:
            meter.restore()
            run.stream.close()
            run.tracker.close()
            run.engine.close()
    return meter, run.engine.device


def rows_of(meter: Meter, counts: dict[str, dict[str, float]]) -> list[Row]:
    rest = meter.step_seconds - sum(meter.measured.values())
    seconds = {part: meter.measured.get(part, 0.0) for part in PARTS} | {"rest": rest}
    rows: list[Row] = [
        {"part": part, "ms": 1000 * spent, "%": 100 * spent / meter.step_seconds, **counts.get(part, {})}
        for part, spent in seconds.items()
    ]
    total = {name: sum(row.get(name, 0.0) for row in rows) for name in ("launches", "device ms", "waits")}
    return [*rows, {"part": "step", "ms": 1000 * meter.step_seconds, "%": 100.0} | (total if counts else {})]


def counts_by_part(events: Iterable[dict[str, Any]], steps: int) -> dict[str, dict[str, float]]:
    """Launches, milliseconds of kernels and waits per step of each part, from the events of a profiler's trace."""
    events = list(events)
    ranges = [event for event in events if event.get("cat") == "user_annotation" and RANGE in event["name"]]
    part_of: dict[int, str] = {}  # by the correlation of a launch with its kernel
    counts: dict[str, dict[str, float]] = {}
    for event in events:
        if event.get("cat") not in ("cuda_runtime", "cuda_driver"):
            continue
        part = innermost(ranges, event["ts"])
        part_of[event["args"].get("correlation", 0)] = part
        column = (
            "launches" if "Launch" in event["name"] else "waits" if "Synchronize" in event["name"] else ""
        )
        if column:
            counts.setdefault(part, defaultdict(float))[column] += 1 / steps
    for event in events:
        if event.get("cat") in ("kernel", "gpu_memcpy", "gpu_memset"):
            part = part_of.get(event["args"].get("correlation", 0), "rest")
            counts.setdefault(part, defaultdict(float))["device ms"] += event["dur"] / 1000 / steps
    columns = ("launches", "device ms", "waits")
    return {part: {column: found[column] for column in columns} for part, found in counts.items()}


def innermost(ranges: list[dict[str, Any]], moment: float) -> str:
    """The part in which a moment of the trace lies."""
    around = [one for one in ranges if one["ts"] <= moment <= one["ts"] + one["dur"]]
    if not around:
        return "rest"
    return str(min(around, key=lambda one: one["dur"])["name"]).removeprefix(RANGE)
