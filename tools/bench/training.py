"""Measure whole training steps: loss, backward pass, optimizer and averages, by engine and ZeRO stage.

    python tools/bench/training.py                                                  the demo's flow stage on a CPU
    python tools/bench/training.py --model paper_sdv --engines local deepspeed:0 deepspeed:1 deepspeed:2
    torchrun --nproc_per_node=2 tools/bench/training.py --model paper_sdv --engines deepspeed:0 deepspeed:1
    python tools/bench/training.py --breakdown --model campaign64 --batch 256 engine.precision=bfloat16

Further arguments are overrides of the training command, such as train.ema.sigma_rels=[]. Under torchrun the
processes are the ranks of each engine in turn. `--output` is written after each engine.

`ms` is the median over rounds of ten steps; the device is idle before and after a round. `ratio` compares with the
first row. `snapshot ms` is the time that training waits while a checkpoint is copied, `state MiB` the size of this
rank's part of it, `collectives ms` the time of rank 0's collectives in a step, in which it also waits for other ranks.
"""

from __future__ import annotations

import argparse
import gc
import re
import statistics
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from breakdown import breakdown
from common import Row, command_line, machine, table, write_json
from subjects import BATCHES, SMALL_BATCH, training_command

from lediflow.config.building.micro_batch import build_trial_stage
from lediflow.config.building.models import build_trained_model
from lediflow.config.building.run import build_engine
from lediflow.config.composition.schema import TrainCommand
from lediflow.data.streams.batch import Batch
from lediflow.engine.ema import decays_for
from lediflow.engine.passes import Passes
from lediflow.engine.protocol import Engine
from lediflow.engine.ranks import Ranks, find_ranks
from lediflow.engine.timings import Stopwatch, Timings
from lediflow.flow.noise import SampleNoise
from lediflow.models import build_model
from lediflow.stages.protocol import StageLoss

STEPS = 10  # per round
WARM_UP = 5  # a recording begins after three steps


def main(arguments: list[str] | None = None) -> None:
    chosen = options(arguments)
    ranks = find_ranks()
    if chosen.breakdown:
        show(breakdown(loop_overrides(chosen), chosen.steps), chosen.output, ranks)
        return
    rows: list[Row] = []
    for name in chosen.engines:
        row = row_of(name, chosen, ranks)
        rows.append(row | {"ratio": row["ms"] / (rows or [row])[0]["ms"]})
        if ranks.is_first:
            print(table(rows[-1:]), flush=True)
            if chosen.output:
                write_json(chosen.output, rows)
    show(rows, chosen.output, ranks)


def show(rows: list[Row], output: str | None, ranks: Ranks) -> None:
    """Print the table on rank 0, and write it if asked."""
    if not ranks.is_first:
        return
    print(f"\n{machine()}\n\n{table(rows)}")
    if output:
        print(f"\nwritten to {write_json(output, rows)}")


def options(arguments: list[str] | None) -> argparse.Namespace:
    parser = command_line(__doc__)
    parser.add_argument("--model", default="demo", help="a file of conf/model")
    parser.add_argument("--stage", default="flow", choices=["auxiliary", "flow", "latent_sampler"])
    parser.add_argument("--prior", default="learned", choices=["learned", "gaussian"])
    parser.add_argument("--batch", type=int, help="samples per step and rank")
    parser.add_argument(
        "--engines", nargs="+", type=engine_name, default=["local"], metavar="local|deepspeed:ZERO[:cpu]"
    )
    parser.add_argument(
        "--rounds", type=int, default=5, help="rounds of ten steps, of which the median is taken"
    )
    parser.add_argument("--breakdown", action="store_true", help="show the parts of a step of the whole loop")
    parser.add_argument("--steps", type=int, default=200, help="measured steps of a breakdown")
    parser.add_argument("--output", help="JSON file for the rows and their provenance")
    chosen, overrides = parser.parse_known_args(arguments)
    chosen.overrides = overrides
    if chosen.breakdown and find_ranks().world_size > 1:
        parser.error("--breakdown measures one rank: start it without torchrun")
    if "local" in chosen.engines and find_ranks().world_size > 1:
        parser.error("--engines local is one process: leave it out under torchrun")
    return chosen


def engine_name(text: str) -> str:
    """A value of --engines, which must not swallow the overrides behind it."""
    if not re.fullmatch(r"local|deepspeed:[0-3](:cpu)?", text):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no engine: give local, deepspeed:ZERO or deepspeed:ZERO:cpu, and overrides before another "
            "option, such as --rounds"
        )
    return text


def row_of(name: str, chosen: argparse.Namespace, ranks: Ranks) -> Row:
    """Build, measure and close one engine."""
    command = command_of(name, chosen)
    engine, step = step_of(command, ranks)
    communication = Timings(engine.device).communication
    engine.time_communication(communication)
    for _ in range(WARM_UP):
        next(step)
    laps = [round_ms(step, engine.device, communication) for _ in range(chosen.rounds)]
    milliseconds = statistics.median(laps)
    standing, size = snapshot(engine)
    engine.close()
    row = {
        "model": chosen.model,
        "stage": chosen.stage,
        "engine": name,
        "ranks": engine.ranks.world_size,
        "batch": command.train.global_batch,
        "ms": milliseconds,
        "img/s": 1000 * command.train.global_batch / milliseconds,
        "collectives ms": 1000 * statistics.median(communication.seconds()) if ranks.world_size > 1 else None,
        "peak GiB": torch.cuda.max_memory_allocated() / 2**30 if engine.device.type == "cuda" else None,
        "snapshot ms": standing,
        "state MiB": size,
    }
    del engine, step
    forget()
    return row


def loop_overrides(chosen: argparse.Namespace) -> list[str]:
    """The overrides of the training command whose loop is measured."""
    engine, _, zero = chosen.engines[0].partition(":")
    batch = (chosen.batch or BATCHES.get(chosen.model, SMALL_BATCH)) * find_ranks().world_size
    return [
        f"model={chosen.model}", f"prior={chosen.prior}", f"stage={chosen.stage}", f"engine={engine}",
        f"engine.zero={zero or 0}", f"train.global_batch={batch}", *chosen.overrides,
    ]  # fmt: skip


def command_of(name: str, chosen: argparse.Namespace) -> TrainCommand:
    """The training command of a row."""
    engine, _, rest = name.partition(":")
    zero, _, offload = rest.partition(":")
    command = training_command(
        chosen.model, chosen.prior, [f"stage={chosen.stage}", f"engine={engine}", *chosen.overrides]
    )
    batch = (chosen.batch or BATCHES.get(chosen.model, SMALL_BATCH)) * find_ranks().world_size
    config = replace(command.engine, zero=int(zero or 0), offload=offload or "none")
    return replace(command, engine=config, train=replace(command.train, global_batch=batch))


def step_of(command: TrainCommand, ranks: Ranks) -> tuple[Engine, Iterator[None]]:
    """An engine, and an endless iterator of its steps on random samples.

    `ranks` are those of the start: an engine that joins a group sets the variables by which they are found.
    """
    torch.manual_seed(0)
    engine = build_engine(command, build_trained_model(command), ranks)
    auxiliary: Any = None
    if command.stage.name != "auxiliary" and command.prior == "learned":
        auxiliary = engine.frozen(build_model(command.model.auxiliary, command.engine.attention_route))
    stage = build_trial_stage(command, auxiliary)
    size, count = command.model.image_size, engine.micro_batch
    images = torch.randn(count, command.model.channels, size, size, device=engine.device)
    ids = torch.arange(count, device=engine.device)
    batch = Batch(ids=ids, keys=[str(i) for i in range(count)], images=images, labels=None)
    noise = SampleNoise(0)
    passes: Passes[Batch, StageLoss] = Passes(engine, lambda batch: stage.loss(engine.module, batch, noise))
    decays = decays_for(command.train.ema, 1_000_000, command.train.global_batch)

    def steps() -> Iterator[None]:
        while True:
            for _ in range(engine.accumulation):
                passes(batch)
            engine.step(1e-3, decays)
            engine.group.agree([0, 0, 0])
            yield

    return engine, steps()


def round_ms(step: Iterator[None], device: torch.device, communication: Stopwatch) -> float:
    """Mean milliseconds per step over one round."""
    wait(device)
    communication.restart_step()
    started = time.perf_counter()
    for _ in range(STEPS):
        next(step)
        communication.end_step()
    wait(device)
    return 1000 * (time.perf_counter() - started) / STEPS


def snapshot(engine: Engine) -> tuple[float, float]:
    """Milliseconds that copying the state delays a step (second copy: memory is allocated), and the state's MiB."""
    engine.state().ready()
    wait(engine.device)
    started = time.perf_counter()
    state = engine.state()
    state.ready()
    standing = 1000 * (time.perf_counter() - started)
    return standing, sum(tensor.nbytes for tensor in state.tensors.values()) / 2**20


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def forget() -> None:
    """Free caches and compiled code before the next row."""
    gc.collect()
    torch.compiler.reset()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


if __name__ == "__main__":
    main()
