"""Estimates the duration of a run: from the logged speed of a similar run, otherwise from FLOPs."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from omegaconf import OmegaConf

from lediflow.config.composition.schema import TrainCommand
from lediflow.config.dry_run.cost import Work
from lediflow.records import RecordError
from lediflow.run_folder import RunFolder
from lediflow.text import PLANNED, duration
from lediflow.tracking.event_log import Event, curve, standing_events
from lediflow.training.throughput import peak_tflops

# fraction of a device's peak that training reaches: an H100 does 32 to 40 % without the optimizer's step
SHARE = 0.3
ELSEWHERE = ("NVIDIA GeForce RTX 3090", "NVIDIA A100-SXM4-40GB", "NVIDIA H100 80GB HBM3")
CPU_SHARE = 0.15  # the same fraction for a CPU: the demo's models on two cores
PRODUCT = 1024  # side length of the matrices in the measurement of a CPU's speed
# options that must be equal for the speed of another run to apply
ALIKE = (
    "stage.name",
    "stage.encode_once",
    "stage.objective",
    "stage.teacher_steps",
    "stage.teacher_pairs",
    "prior",
    "model",
    "train.global_batch",
    "engine.device",
    "engine.compile",
    "engine.precision",
    "engine.activation_checkpointing",
)


class Speed(NamedTuple):
    """Images per second of the whole run, and the source of the number."""

    where: str
    images_per_second: float
    source: str


def duration_table(command: TrainCommand, work: Work) -> list[list[str]]:
    """Rows of the section "Expected time"."""
    rows = [["on", "images/s", "time", "from"]]
    logged = logged_speed(command, work.ranks)
    speeds = [logged] if logged else computed_speeds(command, work)
    for speed in speeds:
        rows.append([speed.where, f"{speed.images_per_second:,.1f}", time_of(command, speed), speed.source])
    return rows


def time_of(command: TrainCommand, speed: Speed) -> str:
    """Duration of the whole run at this speed, without validation, checkpoints and compilation."""
    rate = speed.images_per_second
    return duration(command.train.images / rate, PLANNED) if rate else "?"


def logged_speed(command: TrainCommand, ranks: int) -> Speed | None:
    """Logged speed of this run, or of a run in the same folder with the same model, batch size and number of ranks."""
    own = Path(command.run)
    for root in [own, *sorted(path for path in own.parent.glob("*") if path != own)]:
        folder = RunFolder(root)
        if not (
            folder.events.is_file() and folder.config.is_file() and is_alike(options_of(folder), command)
        ):
            continue
        values = curve(folder.events, "train", "images_per_second").values
        start = last_start(folder.events)
        if len(values) and start.get("ranks") == ranks:
            source = f"the median of {folder.events}, on {start.get('host', 'an unknown host')}"
            return Speed("as before", float(np.median(values)), source)
    return None


def is_alike(config: dict[str, Any], command: TrainCommand) -> bool:
    """Whether a recorded configuration has the same cost per image as this command."""
    theirs = OmegaConf.create(config)
    ours = OmegaConf.create({"command": command}, flags={"allow_objects": True}).command
    return all(plain(OmegaConf.select(theirs, key)) == plain(OmegaConf.select(ours, key)) for key in ALIKE)


def options_of(folder: RunFolder) -> dict[str, Any]:
    """The recorded configuration of a run; empty if it cannot be read."""
    try:
        return folder.recorded_options()
    except RecordError:
        return {}


def plain(node: Any) -> Any:
    """An OmegaConf node as plain Python values."""
    return OmegaConf.to_container(node) if OmegaConf.is_config(node) else node


def last_start(events: Path) -> Event:
    """The event that began the run's last attempt, with its ranks and host; empty if there is none."""
    starts = [event for event in standing_events(events) if event["event"] in ("start", "resume")]
    return starts[-1] if starts else {}


def computed_speeds(command: TrainCommand, work: Work) -> list[Speed]:
    """Speeds computed from FLOPs: on the device of engine.peak_tflops, else on this machine's device.

    Without a GPU, on this CPU and on some common GPUs.
    """
    precision, here = work.engine.precision, torch.cuda.is_available() and command.engine.device != "cpu"
    assumed = f"FLOP / (peak x {SHARE}), an assumed fraction"
    if command.engine.peak_tflops:
        return [Speed("engine.peak_tflops", speed(work, command.engine.peak_tflops), assumed)]
    names = [torch.cuda.get_device_name()] if here else ELSEWHERE
    peaks = {name: peak_tflops(name, precision) for name in names}
    speeds = [
        Speed(f"{work.ranks} x {name}", speed(work, peak), assumed) for name, peak in peaks.items() if peak
    ]
    if here:
        return speeds or [Speed(names[0], 0.0, "its peak is unknown: give engine.peak_tflops=...")]
    measured = measured_tflops(torch.bfloat16 if precision == "bfloat16" else torch.float32)
    source = f"a product of {PRODUCT}x{PRODUCT} matrices, {measured:.2f} TFLOP/s, x {CPU_SHARE} (assumed)"
    return [Speed("this CPU", CPU_SHARE * measured * 1e12 / work.flops, source), *speeds]


def speed(work: Work, tflops: float) -> float:
    """Images per second if every rank reaches the fraction SHARE of this peak."""
    return work.ranks * SHARE * tflops * 1e12 / work.flops


def measured_tflops(dtype: torch.dtype) -> float:
    """TFLOP/s of a matrix product on this CPU: the fastest of five."""
    left, right = torch.ones(PRODUCT, PRODUCT, dtype=dtype), torch.ones(PRODUCT, PRODUCT, dtype=dtype)
    seconds = []
    for _ in range(5):
        before = time.perf_counter()
        left @ right
        seconds.append(time.perf_counter() - before)
    return 2 * PRODUCT**3 / min(seconds) / 1e12
