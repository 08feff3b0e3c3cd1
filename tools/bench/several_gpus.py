"""Measure what only several GPUs of one host can show: their speed together, and that their numbers agree.

    python tools/bench/several_gpus.py --folder /scratch/several --name 8xh200 --gpus 1 2 4 8
    python tools/bench/several_gpus.py --folder /scratch/several --name 2xh200 --parts training losses

training   whole steps by ZeRO stage: the same batch for each GPU, and the same batch in all
run        the training command with its memory held, on all GPUs, continued on one, and on all again
losses     losses of a short training by number of GPUs and ZeRO stage
data       encode and evaluate on one GPU and on several, and whether they make the same

Each part starts a user's commands under torchrun, and writes bench_several_PART_NAME.json into --output after each of
them. The other commands run although one fails; failed ones are named in the file and at the end, which is exit status
1. What a command printed is in --folder. Pictures are drawn and encoded by a TAESD with random weights. The tables are
those of docs/performance_gpus.md.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from common import certificate, command_line
from encode import random_weights
from subjects import BATCHES, SMALL_BATCH

from lediflow.data.prepare import PrepareConfig, prepare
from lediflow.data.shards.index import INDEX_NAME
from lediflow.data.synthetic import make_synthetic_images
from lediflow.evaluation.results import write_results
from lediflow.tracking.event_log import BEGINNINGS, curve, parse_event

ROOT = Path(__file__).parents[2]
Results = dict[str, Any]

TORCHRUN = ["-m", "torch.distributed.run", "--standalone"]
MICRO_BATCH = re.compile(r"micro-batches of (\d+) samples")  # as the training command prints it
LOSS_BATCH = 16  # of all ranks together
LOSS_STEPS = {"smoke": 30, "campaign64": 10}
SHARD_SAMPLES = 64
AT_START = "start"  # why a run was continued: not after bad steps


class CommandError(Exception):
    """A command ended with another exit status than 0; it has been recorded."""


class Bench:
    """Runs the commands of all parts and records which failed."""

    def __init__(self, chosen: argparse.Namespace) -> None:
        self.chosen, self.folder = chosen, Path(chosen.folder)
        self.failed: list[str] = []
        self.numbers = itertools.count()
        self.device = [] if torch.cuda.is_available() else ["engine.device=cpu"]

    def launch(self, ranks: int, *arguments: str) -> str:
        """Run a script, or `-m module`, as that many ranks; what it printed. CommandError if it failed."""
        start = [*TORCHRUN, f"--nproc_per_node={ranks}"] if ranks > 1 else []
        named = " ".join(["torchrun" if ranks > 1 else "python", *start[len(TORCHRUN) :], *arguments])
        print(named, flush=True)
        done = subprocess.run(
            [sys.executable, *start, *arguments],
            env=environment(ranks), cwd=ROOT, text=True, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        log = self.folder / f"{next(self.numbers):03d}.log"
        log.write_text(f"{named}\n\n{done.stdout}")
        if done.returncode:
            self.failed.append(f"{named}: exit status {done.returncode}")
            print(f"exit status {done.returncode}, see {log}\n{reason(done.stdout)}", flush=True)
            raise CommandError
        return done.stdout


def reason(printed: str) -> str:
    """The errors that a command reported, once for all ranks, or else the end of what it printed."""
    errors = dict.fromkeys(line for line in printed.splitlines() if line.startswith("error"))
    return "\n".join(errors) or printed[-1500:]


def environment(ranks: int) -> dict[str, str]:
    """The environment of a command, which sees the first `ranks` GPUs only."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    seen = {"CUDA_VISIBLE_DEVICES": ",".join(map(str, range(ranks)))} if torch.cuda.is_available() else {}
    return {"OMP_NUM_THREADS": "1", **os.environ, **seen, "PYTHONPATH": path}


def training(bench: Bench) -> Iterator[Results]:
    """Rows of tools/bench/training.py for each model and number of GPUs: weak, then strong scaling."""
    chosen = bench.chosen
    rows: list[Results] = []
    engines = [f"deepspeed:{zero}" for zero in chosen.zero]
    for model, ranks in itertools.product(chosen.models, chosen.gpus):
        most = batch_of(model, chosen)
        for batch in sorted({most, most // ranks}, reverse=True):
            output = bench.folder / f"training_{model}_{ranks}_{batch}.json"
            output.unlink(missing_ok=True)
            options = [
                "--engines", *engines, "--model", model, "--batch", str(batch), "--output", str(output)
            ]  # fmt: skip
            with suppress(CommandError):
                bench.launch(ranks, "tools/bench/training.py", *options, *bench.device, *chosen.train)
            if output.is_file():  # an engine that fails leaves the rows of those before it
                rows.extend(json.loads(output.read_text())["results"]["rows"])
            yield {"rows": rows}


def batch_of(model: str, chosen: argparse.Namespace) -> int:
    """Samples a GPU in weak scaling, and of all GPUs in strong scaling."""
    return chosen.batch or BATCHES.get(model, SMALL_BATCH)


def continued_run(bench: Bench) -> Iterator[Results]:
    """The `starts` and `saves` of one run: a third of it on all GPUs, a third on one, the rest on all."""
    chosen, folder = bench.chosen, bench.folder / "run"
    shutil.rmtree(folder, ignore_errors=True)
    with suppress(CommandError):
        latents = encoded(bench, 1)
        third = max(1, chosen.images // 3 // chosen.run_batch) * chosen.run_batch
        options = [
            f"experiment={chosen.experiment}", "engine=workstation_2x3090", "stage=flow", "prior=gaussian",
            f"run={folder}", f"data.path={latents}", "synthetic_images=0", "tracking.progress=false",
            f"train.global_batch={chosen.run_batch}", f"train.checkpoint.every_images={third}",
            f"train.log_every_images={max(chosen.run_batch, third // 4)}", "train.pictures.every_images=0",
            *bench.device, *chosen.train,
        ]  # fmt: skip
        fitted: list[int | None] = []
        for number, ranks in enumerate((max(chosen.gpus), 1, max(chosen.gpus)), 1):
            held = "tools/bench/held_memory.py", str(chosen.memory_gib), "lediflow.train"
            found = MICRO_BATCH.search(bench.launch(ranks, *held, *options, f"train.images={number * third}"))
            fitted.append(int(found[1]) if found else None)
            yield {"held_gib": chosen.memory_gib, **starts_and_saves(folder / "events.jsonl", fitted)}


def starts_and_saves(events: Path, fitted: list[int | None]) -> Results:
    """Each start of a run and each of its checkpoints, by number of ranks.

    A start's images per second are their median over its log; `fitted` has the micro-batch of each start.
    """
    starts: list[Results] = []
    saves: list[Results] = []
    speeds: list[list[float]] = []
    for event in filter(None, map(parse_event, events.read_text().splitlines())):
        if event["event"] in BEGINNINGS and event.get("why", AT_START) == AT_START:
            ranks, seen = event["ranks"], event["images_seen"]
            starts.append({"ranks": ranks, "from": seen, "resume_seconds": event.get("seconds")})
            speeds.append([])
        elif event["event"] == "train":
            speeds[-1].append(float(event["images_per_second"]))
            starts[-1] |= {"to": event["images_seen"], "peak GiB": event["peak_memory_gib"]}
        elif event["event"] == "checkpoint":
            saves.append(
                {key: event[key] for key in ("seconds", "waited_seconds")} | {"ranks": starts[-1]["ranks"]}
            )
    for start, rates, size in zip(starts, speeds, fitted, strict=True):
        start |= {"img/s": sorted(rates)[len(rates) // 2] if rates else None, "micro_batch": size}
    return {"starts": starts, "saves": saves}


def losses(bench: Bench) -> Iterator[Results]:
    """`experiments`: every logged loss of a short training in float32, by number of GPUs and ZeRO stage."""
    chosen = bench.chosen
    found: dict[str, dict[str, dict[str, float]]] = {name: {} for name in chosen.losses}
    halves = [f"engine.micro_batch={LOSS_BATCH // 2}"]
    for experiment in chosen.losses:
        variants = {
            "one process": (1, ["engine=local"]),
            "one process, two micro-batches": (1, ["engine=local", *halves]),
        }
        for ranks, zero in itertools.product(several(chosen), chosen.zero):
            variants[f"{ranks} ranks, ZeRO {zero}"] = ranks, ["engine=deepspeed", f"engine.zero={zero}"]
        for name, (ranks, engine) in variants.items():
            folder = bench.folder / "losses" / experiment / re.sub(r"\W+", "_", name)
            shutil.rmtree(folder, ignore_errors=True)
            images = LOSS_BATCH * LOSS_STEPS.get(experiment, 10)
            with suppress(CommandError):
                bench.launch(
                    ranks,
                    "-m",
                    "lediflow.train",
                    *loss_options(experiment, folder, images),
                    *engine,
                    *bench.device,
                )
                line = curve(folder / "events.jsonl", "train", "loss")
                found[experiment][name] = {
                    str(seen): float(loss) for seen, loss in zip(line.images_seen, line.values, strict=True)
                }
            yield {"experiments": found}


def loss_options(experiment: str, folder: Path, images: int) -> list[str]:
    """A training in float32 without anything but steps; all trainings of an experiment read the same drawn pictures."""
    return [
        f"experiment={experiment}", "stage=flow", "prior=gaussian", f"run={folder}", f"paths.runs={folder.parent}",
        "synthetic_images=96", f"data.path={folder.parent / 'shards'}", "data.held_out_fraction=0",
        f"train.global_batch={LOSS_BATCH}", f"train.images={images}", f"train.log_every_images={LOSS_BATCH}",
        "train.schedule.warmup_images=64", "train.schedule.decay_images=0", "train.validation.every_images=0",
        "train.pictures.every_images=0", "train.checkpoint.every_images=10000000", "engine.precision=float32",
        "engine.compile=false", "tracking.progress=false",
    ]  # fmt: skip


def data(bench: Bench) -> Iterator[Results]:
    """`rows` of encode and evaluate: seconds, images per second, and what tells whether they made the same."""
    chosen = bench.chosen
    rows: list[Results] = []
    for ranks in chosen.gpus:
        with suppress(CommandError):
            rows.append(encode_row(bench, ranks))
        yield {"rows": rows}
    with suppress(CommandError):
        model = bench.folder / "losses" / "smoke" / "evaluated"
        shutil.rmtree(model, ignore_errors=True)
        bench.launch(1, "-m", "lediflow.train", *loss_options("smoke", model, 320), *bench.device)
        for ranks in chosen.gpus:
            with suppress(CommandError):
                rows.append(evaluate_row(bench, ranks, model))
            yield {"rows": rows}


def encode_row(bench: Bench, ranks: int) -> Results:
    """Encode drawn pictures; its images per second are those after each rank's first shard."""
    began = time.time()
    latents = encoded(bench, ranks)
    seconds = time.time() - began
    index = json.loads((latents / INDEX_NAME).read_text())
    ended = sorted(((latents / shard["name"]).stat().st_mtime, shard["samples"]) for shard in index["shards"])
    start, stop = ended[min(ranks, len(ended)) - 1][0], ended[-1][0]
    rest = sum(samples for end, samples in ended if end > start)
    made = hashlib.sha256("".join(shard["sha256"] for shard in index["shards"]).encode())
    rate = rest / (stop - start) if rest else index["samples"] / seconds
    row = {"command": "encode", "ranks": ranks, "images": index["samples"], "seconds": seconds}
    return row | {"img/s": rate, "digest": made.hexdigest()}


def encoded(bench: Bench, ranks: int) -> Path:
    """Latent shards of the drawn pictures, made again by that many ranks."""
    chosen = bench.chosen
    pictures, shards, latents = (bench.folder / name for name in ("pictures", "shards", f"latents_{ranks}"))
    if not (shards / INDEX_NAME).is_file():
        make_synthetic_images(pictures, chosen.pictures, size=chosen.size)
        prepare(
            PrepareConfig(
                source=str(pictures), output=str(shards), size=chosen.size, shard_samples=SHARD_SAMPLES
            )
        )
    shutil.rmtree(latents, ignore_errors=True)
    weights = random_weights("taesd", bench.folder)
    options = f"source={shards}", f"output={latents}", "codec=taesd", f"codec.path={weights}"
    bench.launch(ranks, "-m", "lediflow.encode", *options, *(["device=cpu"] if bench.device else []))
    return latents


def evaluate_row(bench: Bench, ranks: int, model: Path) -> Results:
    """Evaluate a small trained flow; the digest is that of its metrics to five digits."""
    output = bench.folder / f"evaluated_{ranks}"
    shutil.rmtree(output, ignore_errors=True)
    count = bench.chosen.evaluated
    options = (
        f"run={model}",
        f"data.path={model.parent / 'shards'}",
        f"count={count}",
        "step_counts=[4]",
        f"output={output}",
    )
    began = time.time()
    bench.launch(ranks, "-m", "lediflow.evaluate", *options)
    seconds = time.time() - began
    [row] = json.loads((output / "results.json").read_text())["results"]["rows"]
    digits = [
        f"{row[name]:.5g}"
        for name in ("mmd_unbiased", "frechet", "kid", "precision", "recall", "density", "coverage")
    ]
    made = hashlib.sha256(" ".join(digits).encode()).hexdigest()
    return {
        "command": "evaluate",
        "ranks": ranks,
        "images": count,
        "seconds": seconds,
        "img/s": count / seconds,
        "digest": made,
    }


PARTS: dict[str, Callable[[Bench], Iterator[Results]]] = {
    "training": training, "run": continued_run, "losses": losses, "data": data
}  # fmt: skip


def several(chosen: argparse.Namespace) -> list[int]:
    return [ranks for ranks in chosen.gpus if ranks > 1]


def options(arguments: list[str] | None) -> argparse.Namespace:
    parser = command_line(__doc__)
    gpus = torch.cuda.device_count()
    parser.add_argument(
        "--folder", required=True, help="scratch folder: runs, shards, and what each command printed"
    )
    parser.add_argument("--name", required=True, help="last part of the names of the files, such as 2xh200")
    parser.add_argument("--output", default=str(ROOT / "results"), help="folder of the JSON files")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=[*PARTS])
    parser.add_argument(
        "--gpus", nargs="+", type=int, default=sorted({1, max(gpus, 1)}), help="numbers of GPUs, with 1"
    )
    parser.add_argument(
        "--models", nargs="+", default=["paper_sdv", "paper_rgb"], help="of `training`: files of conf/model"
    )
    parser.add_argument("--batch", type=int, help="of `training`: samples a GPU, and all together")
    parser.add_argument("--zero", nargs="+", type=int, choices=range(4), default=[1, 2, 3, 0])
    parser.add_argument("--experiment", default="ffhq256_sdv_flow", help="of `run`")
    parser.add_argument("--run-batch", type=int, default=64, help="of `run`: the global batch")
    parser.add_argument("--images", type=int, default=38_400, help="of `run`")
    parser.add_argument(
        "--memory-gib", type=float, default=24, help="of `run`: memory of each GPU that may be used"
    )
    parser.add_argument(
        "--losses", nargs="*", default=[*LOSS_STEPS], help="of `losses`: files of conf/experiment"
    )
    parser.add_argument("--pictures", type=int, default=4096, help="of `data` and `run`: pictures to draw")
    parser.add_argument("--size", type=int, default=256, help="their side")
    parser.add_argument(
        "--evaluated", type=int, default=8192, help="of `data`: images to generate and compare"
    )
    parser.add_argument("--train", nargs="*", default=["engine.precision=bfloat16"], metavar="KEY=VALUE")
    chosen = parser.parse_args(arguments)
    if 1 not in chosen.gpus or (gpus and max(chosen.gpus) > gpus):
        parser.error(
            f"--gpus {' '.join(map(str, chosen.gpus))}: give 1, to compare with, and at most {max(gpus, 1)}"
        )
    for model, ranks in itertools.product(chosen.models, chosen.gpus):
        if batch_of(model, chosen) % ranks:
            parser.error(
                f"the batch of {batch_of(model, chosen)} of {model} cannot be divided among {ranks} GPUs"
            )
    return chosen


def main(arguments: list[str] | None = None) -> None:
    chosen = options(arguments)
    bench = Bench(chosen)
    bench.folder.mkdir(parents=True, exist_ok=True)
    made = certificate()
    for part in chosen.parts:
        path = Path(chosen.output, f"bench_several_{part}_{chosen.name}.json")
        for results in PARTS[part](bench):
            write_results(path, results | {"failed": bench.failed}, made)
    if bench.failed:
        sys.exit("\n".join(["failed:", *bench.failed]))


if __name__ == "__main__":
    main()
