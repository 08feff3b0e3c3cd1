"""Measure what logging costs a training that takes 20 steps a second, by view.

    python tools/bench/tracking.py --output results/bench_tracking.json

A loop in the place of the training collects the values of a batch of the flow in every step and records the events
`train` and `ranks`, as `training/recording.py` does; it sleeps for the rest of each step, so that threads and processes
of the views work beside it as they do beside a GPU. W&B's server is the stand-in of the tests, here. Columns:

ms          that the loop stands still for a record: both events, mean over all of the run
p99 ms      the same, 99 % of the records stand still for less
CPU ms      of this process for a record, its other threads included; W&B is another process
% of step   the loop's time for collecting and recording, when every N-th step is recorded: with the default of
            train.log_every_images and batches of 256
% if each   the same if every step were recorded
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch
from common import Row, command_line, machine, table, write_json

from lediflow.engine.group import Group
from lediflow.stages.bins import by_sigma, by_time
from lediflow.stages.protocol import StageLoss, stage_loss
from lediflow.tracking.tracker import TrackingConfig, build_tracker
from lediflow.training.clock import Clock
from lediflow.training.config import TrainingConfig
from lediflow.training.recording import Recorder
from lediflow.training.throughput import Throughput

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
from harness.wandb_server import standing_in  # the tests' own server

BATCH = 256
STEPS_PER_SECOND = 20.0
SPARSE = TrainingConfig().log_every_images // BATCH  # steps between two records, with the default options
WANDB = {"wandb": True, "wandb_mode": "online"}
VIEWS: dict[str, dict[str, Any]] = {
    "event log": {},
    "and progress": {"progress": True},
    "and W&B (online)": WANDB,
    "and TensorBoard": {"tensorboard": True},
    "all views": {"progress": True, "tensorboard": True, **WANDB},
}


class Spent(NamedTuple):
    """Seconds of one loop: of each step's collecting, of each record, and of the process over all."""

    collecting: list[float]
    recording: list[float]
    cpu: float


def main(arguments: list[str] | None = None) -> None:
    chosen = options(arguments)
    with standing_in() as server:
        os.environ |= {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": "0" * 40, "WANDB_SILENT": "true"}
        rows = measured(chosen)
    print(f"{machine()}\n{STEPS_PER_SECOND:g} steps a second; every {SPARSE}th is recorded\n\n{table(rows)}")
    if chosen.output:
        print(f"\nwritten to {write_json(chosen.output, rows)}")


def options(arguments: list[str] | None) -> argparse.Namespace:
    parser = command_line(__doc__)
    parser.add_argument("--seconds", type=float, default=20.0, help="for each row")
    parser.add_argument("--views", nargs="+", choices=VIEWS, default=list(VIEWS))
    parser.add_argument("--output", help="JSON file for the rows and their provenance")
    return parser.parse_args(arguments)


def measured(chosen: argparse.Namespace) -> list[Row]:
    """A row for collecting alone, and one for each choice of views."""
    steps = max(2, round(chosen.seconds * STEPS_PER_SECOND))
    torch.set_num_threads(1)
    idle = spent(steps, None)
    rows: list[Row] = [
        {
            "logging": "collecting, every step",
            "ms": in_ms(idle.collecting),
            **shares(0.0, in_ms(idle.collecting)),
        }
    ]
    for name in chosen.views:
        found = spent(steps, TrackingConfig(**{"progress": False, **VIEWS[name]}))
        ms = in_ms(found.recording)
        rows.append(
            {
                "logging": name,
                "ms": ms,
                "p99 ms": 1e3 * float(np.quantile(found.recording, 0.99)),
                "CPU ms": 1e3 * (found.cpu - idle.cpu) / steps,
                **shares(ms, in_ms(found.collecting)),
            }
        )
    return rows


def in_ms(seconds: list[float]) -> float:
    """The mean in milliseconds."""
    return 1e3 * float(np.mean(seconds))


def shares(record_ms: float, collecting_ms: float) -> Row:
    """Per cent of a step, from milliseconds for a record, and for what every step takes besides."""
    of_step = 100 * STEPS_PER_SECOND / 1e3
    return {
        "% of step": (record_ms / SPARSE + collecting_ms) * of_step,
        "% if each": (record_ms + collecting_ms) * of_step,
    }


def spent(steps: int, config: TrackingConfig | None) -> Spent:
    """Run the loop in a folder of its own; without a configuration it collects and records nothing."""
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
        clock = Clock(steps * BATCH, BATCH)
        tracker = build_tracker(
            config or TrackingConfig(progress=False), Path(folder) / "run", total_images=clock.images
        )
        tracker.record("start", 0, ranks=1)
        recorder = Recorder(one_rank(), clock, tracker, Throughput(1e9, 100.0))
        recorder.begin()
        try:
            return loop(recorder, clock, is_recorded=config is not None)
        finally:
            tracker.close()


def loop(recorder: Recorder, clock: Clock, *, is_recorded: bool) -> Spent:
    """Take the steps, each as long as the next one should begin."""
    values, collecting, recording = batch_values(), list[float](), list[float]()
    began, cpu = time.perf_counter(), time.process_time()
    for step in range(clock.images // BATCH):
        before = time.perf_counter()
        recorder.waited(lambda: None)
        recorder.add(values)
        clock.advance()
        recorder.end_step()
        collected = time.perf_counter()
        if is_recorded:
            recorder.record(0, gradient_norm=torch.tensor(1.0), learning_rate=1e-3)
        collecting.append(collected - before)
        recording.append(time.perf_counter() - collected)
        time.sleep(max(0.0, began + (step + 1) / STEPS_PER_SECOND - time.perf_counter()))
    return Spent(collecting, recording, time.process_time() - cpu)


def batch_values() -> StageLoss:
    """What the flow reports for a batch: means, and errors by time and by sigma."""
    generator = torch.Generator().manual_seed(0)
    error = torch.rand(BATCH, generator=generator)
    pixels, logvar = torch.rand(BATCH, 64, generator=generator), torch.randn(BATCH, 64, generator=generator)
    bins = {
        "loss_by_time": by_time(error, torch.rand(BATCH, generator=generator)),
        "velocity_mse_by_time": by_time(error, torch.rand(BATCH, generator=generator)),
        "loss_by_sigma": by_sigma(pixels, logvar),
    }
    return stage_loss(error, {"velocity_mse": error.mean(), "prior_sigma": logvar.exp().mean()}, bins)


def one_rank() -> Any:
    """The part of an engine that recording uses, on one rank and a CPU."""
    return SimpleNamespace(
        device=torch.device("cpu"),
        group=Group(),
        ranks=SimpleNamespace(is_first=True),
        config=SimpleNamespace(compile=False),
        time_communication=lambda stopwatch: None,
    )


if __name__ == "__main__":
    main()
