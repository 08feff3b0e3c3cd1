"""Runs commands that depend on each other, several in parallel, and collects their results.

Every script here plans ordinary commands, each with a name, and defines how the results of finished ones are collected.
Small models share a GPU well. Running a script again continues interrupted commands. Results are rewritten whenever a
command ends, so that little is lost if the machine is lost.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lediflow.evaluation.results import birth_certificate, write_results
from lediflow.tracking.event_log import TURNED, curve

ROOT = Path(__file__).parents[2]
OF_A_ROW = ("z", "solver", "steps", "nfe", "mmd", "low", "high")
OF_A_VERDICT = ("limits", "cause", "text", "is_certain")
BETWEEN = re.compile(r",(?![^\[]*\])")  # a comma outside of [...], so that an override's value may be a list


@dataclass
class Job:
    """One command; it starts when all jobs that it needs have succeeded."""

    name: str
    arguments: list[str]  # after `python`
    needs: tuple[str, ...] = ()
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    started: float = 0.0
    seconds: float | None = None  # None: not finished

    @property
    def command(self) -> str:
        return shlex.join(["python", *self.arguments])


Jobs = dict[str, Job]


def by_name(jobs: Iterable[Job]) -> Jobs:
    return {job.name: job for job in jobs}


def listed(values: Iterable[object]) -> str:
    """A list written as the value of an override."""
    return "[" + ",".join(map(str, values)) + "]"


def named_overrides(given: Iterable[str]) -> dict[str, list[str]]:
    """Parse NAME=OVERRIDE,OVERRIDE,... into lists by name."""
    pairs = (each.split("=", 1) for each in given)
    return {name: BETWEEN.split(overrides) if overrides else [] for name, overrides in pairs}


def set_parser(description: str | None, experiment: str) -> argparse.ArgumentParser:
    """Options of every script: the data set, training, and number of generated images."""
    parser = argparse.ArgumentParser(description=(description or "").split("\n\n")[0])
    parser.add_argument("--data", required=True, help="prepared shards")
    parser.add_argument("--name", required=True, help="name of the set, part of the name of the results file")
    parser.add_argument("--folder", type=Path, required=True, help="folder for the runs")
    parser.add_argument("--count", type=int, default=3072, help="generated images per row")
    parser.add_argument("--experiment", default=experiment)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--train", nargs="*", default=[], metavar="KEY=VALUE", help="overrides of every training"
    )
    return parser


def parser_of(description: str | None, experiment: str) -> argparse.ArgumentParser:
    """Options of every script that runs commands."""
    parser = set_parser(description, experiment)
    parser.add_argument(
        "--evaluate", nargs="*", default=[], metavar="KEY=VALUE", help="overrides of every evaluation"
    )
    parser.add_argument("--at-once", type=int, default=8, help="number of commands in parallel")
    return parser


def training(options: argparse.Namespace, *arguments: str) -> list[str]:
    """A training command."""
    fixed = [f"experiment={options.experiment}", f"data.path={options.data}", f"seed={options.seed}"]
    return ["-m", "lediflow.train", *fixed, *options.train, *arguments]


def evaluation(options: argparse.Namespace, *arguments: str) -> list[str]:
    """An evaluation command. Every campaign measures in float32, so that its numbers compare with earlier ones."""
    fixed = [f"data.path={options.data}", f"paths.runs={options.folder}", f"seed={options.seed}"]
    fixed += ["precision=float32"]
    return ["-m", "lediflow.evaluate", *fixed, f"count={options.count}", *options.evaluate, *arguments]


def results_path(kind: str, name: str) -> Path:
    """Results file of a kind of experiment on a set."""
    return ROOT / "results" / "campaign" / f"{kind}_{name}.json"


def carry_out(
    options: argparse.Namespace, kind: str, jobs: Jobs, collect: Callable[[], dict[str, Any]]
) -> None:
    """Run all commands and write the result of `collect` to results/campaign/KIND_NAME.json; exit 1 if one failed."""
    folder = options.folder
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    results = results_path(kind, options.name)
    certificate = birth_certificate(seed=options.seed)
    sessions = session_clock(results, certificate, options.at_once)

    def keep() -> None:
        commands = [{"command": job.command, "seconds": job.seconds} for job in jobs.values()]
        found = {"data": options.name, "experiment": options.experiment, "sessions": sessions()} | collect()
        write_results(results, rounded(found | {"commands": commands}), certificate, is_slim=True)

    failed = work_through(jobs, folder, options.at_once, keep)
    keep()
    if failed:
        sys.exit(f"failed: {', '.join(failed)}; their output is in {folder}/NAME.log")


def session_clock(
    results: Path, certificate: dict[str, Any], at_once: int
) -> Callable[[], list[dict[str, Any]]]:
    """A function that returns every session of this command, the last one until now.

    A session is one start of the script: its wall minutes, the number of commands in parallel, and the GPUs that they
    share. Wall minutes times GPUs are the GPU minutes. Earlier sessions are kept if the same
    command wrote `results`.
    """
    earlier: list[dict[str, Any]] = []
    if results.is_file():
        document = json.loads(
            results.read_text()
        )  # its rows are not those of an evaluation, which read_results checks
        is_same = document["certificate"]["command"] == certificate["command"]
        earlier = document["results"].get("sessions", []) if is_same else []
    facts = {"date": certificate["date"], "at_once": at_once, "gpus": certificate["hardware"]["gpus"]}
    began = time.monotonic()
    return lambda: [*earlier, facts | {"wall_minutes": (time.monotonic() - began) / 60}]


def work_through(jobs: Jobs, folder: Path, at_once: int, keep: Callable[[], None]) -> list[str]:
    """Run all commands and return the names of failed ones; jobs that need a failed one are not started."""
    failed: list[str] = []
    while True:
        running = [job for job in jobs.values() if job.process is not None]
        ready = [job for job in jobs.values() if is_ready(job, jobs, failed)]
        for job in ready[: at_once - len(running)]:
            start(job, folder)
        if not running and not ready:
            return failed
        for job in running:
            status = finished(job)
            if status:
                failed.append(job.name)
            if status is not None:
                keep()
        time.sleep(0.5)


def is_ready(job: Job, jobs: Jobs, failed: list[str]) -> bool:
    is_new = job.process is None and job.seconds is None and job.name not in failed
    return is_new and all(jobs[name].seconds is not None for name in job.needs)


def start(job: Job, folder: Path) -> None:
    print(f"$ {job.command}", flush=True)
    job.started = time.monotonic()
    with (folder / f"{job.name}.log").open("ab") as log:
        command = [sys.executable, *job.arguments]
        job.process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=ROOT)


def finished(job: Job) -> int | None:
    """The exit status; None while it runs."""
    assert job.process is not None
    status = job.process.poll()
    if status is None:
        return None
    seconds = time.monotonic() - job.started
    job.process, job.seconds = None, seconds if status == 0 else None
    outcome = "done" if status == 0 else f"exit status {status}"
    print(f"{job.name}: {outcome} after {seconds:.0f} s", flush=True)
    return status


def stages_of(path: Path) -> dict[str, Any]:
    """Excerpt of a stages.json for the tables: rows, settings and verdict."""
    document = json.loads(path.read_text())
    verdict = {key: document["verdict"][key] for key in OF_A_VERDICT} if "verdict" in document else None
    return facts_of_rows(document["rows"]) | {"verdict": verdict}


def facts_of_rows(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Excerpt of rows for the tables."""
    one = rows[0]
    return {
        "mmd_name": one["mmd_name"],
        "images": one["images"],
        "reference_images": one["reference_images"],
        "real_images": {row["z"]: row["real_images"] for row in rows if row.get("real_images")},
        "rows": [{key: row[key] for key in OF_A_ROW} for row in rows],
    }


def rounded(value: Any) -> Any:
    """`value` with all floats rounded to five decimals, which is far below the noise of the measurements."""
    if isinstance(value, dict):
        return {key: rounded(each) for key, each in value.items()}
    if isinstance(value, list):
        return [rounded(each) for each in value]
    return round(value, 5) if isinstance(value, float) else value


def losses(run: Path, held_out_name: str = "loss") -> dict[str, Any]:
    """The last training and held-out losses, the lowest held-out loss, where it turned, and the speed.

    `turned_at`: the images seen when the run reported that its held-out loss had turned; None if it has not.
    `velocity_mse`: the squared error of the velocity on held-out images, of a flow with a learned prior and of a map;
    that of other flows and of a sampler is their loss.
    `held_out_name` is `loss` (of the weights in training) or `averaged_loss` (of the averaged weights).
    """
    events = run / "events.jsonl"
    training, held_out = curve(events, "train", "loss"), curve(events, "validation", held_out_name)
    speed = curve(events, "train", "images_per_second").values
    last = {"training": training, "held_out": held_out}
    found: dict[str, Any] = {name: float(line.values[-1]) for name, line in last.items() if len(line.values)}
    if len(held_out.values):
        place = int(held_out.values.argmin())
        found["held_out_lowest"] = float(held_out.values[place])
        found["held_out_lowest_at"] = int(held_out.images_seen[place])
    velocity = curve(events, "validation", "velocity_mse").values
    if len(velocity):
        found["velocity_mse"] = float(velocity[-1])
    turned = curve(events, TURNED, "best_images_seen").images_seen
    found["turned_at"] = int(turned[0]) if len(turned) else None
    found["images_seen"] = int(training.images_seen[-1]) if len(training.images_seen) else 0
    return found | ({"images_per_second": float(sorted(speed)[len(speed) // 2])} if len(speed) else {})
