"""How wide should the flow's start be? Flows of several widths side by side on one machine, measured alike.

    python tools/campaign/widths.py --data SHARDS --name pets64 --folder runs/widths_pets64

trains the auxiliary model and the flow-matching baseline (FM), then a latent sampler and a flow for each width s, which
start from N(mu, sigma^2 + s^2), and evaluates each run over solvers and steps. All are ordinary commands, started as
soon as what they build on is there, and as many at once as that allows: small models share a GPU well. The same command
again continues what was stopped. Numbers come to results/campaign/widths_NAME.json, anew whenever a run is measured.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lediflow.evaluation.results import birth_certificate, read_results, write_results
from lediflow.tracking.jsonl import curve

ROOT = Path(__file__).parents[2]
FIELDS = ("solver", "steps", "nfe", "sample_images", "reference_images", "mmd_name")
OF_THE_PRIOR = (
    "images",
    "nll_nats",
    "kl_nats_per_image",
    "sigma_geometric_mean",
    "sigma_mean",
    "share_at_floor",
)


@dataclass
class Job:
    """One command; it starts when all that it needs has succeeded."""

    name: str
    arguments: list[str]  # after `python -m`
    needs: tuple[str, ...] = ()
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    started: float = 0.0
    seconds: float | None = None  # None: not finished

    @property
    def command(self) -> str:
        return shlex.join(["python", "-m", *self.arguments])


def flow_name(width: float) -> str:
    return f"flow_{width:g}"


def plan(options: argparse.Namespace) -> dict[str, Job]:
    """Every command, by its name."""
    folder, widths = options.folder, options.widths
    train = ["lediflow.train", f"experiment={options.experiment}", f"data.path={options.data}"]
    train += [f"seed={options.seed}", *options.train]
    evaluate = [
        "lediflow.evaluate",
        f"data.path={options.data}",
        f"paths.runs={folder}",
        f"seed={options.seed}",
    ]
    evaluate += options.evaluate
    grid = [*evaluate, "mode=grid", f"count={options.count}", f"grid.steps={listed(options.steps)}"]
    parent = f"parent={folder}/auxiliary"
    jobs = [
        Job("auxiliary", [*train, "stage=auxiliary", f"run={folder}/auxiliary"]),
        Job("fm", [*train, "stage=flow", "prior=gaussian", f"run={folder}/fm"]),
        Job("sampler", [*train, "stage=latent_sampler", parent, f"run={folder}/sampler"], ("auxiliary",)),
        Job(
            "prior",
            [
                *evaluate,
                "mode=prior",
                "data.split=heldout",
                f"run={folder}/auxiliary",
                f"output={folder}/grid_prior",
            ],
            ("auxiliary",),
        ),
        # The first grid keeps the photographs' features for all others.
        Job("grid_fm", [*grid, f"run={folder}/fm", f"output={folder}/grid_fm"], ("fm",)),
    ]
    for width in widths:
        name = flow_name(width)
        widened = [f"stage.prior_widening={width:g}"]
        pair = [f"run={folder}/{name}", f"sampler={folder}/sampler", f"output={folder}/grid_{name}"]
        jobs.append(
            Job(name, [*train, "stage=flow", *widened, parent, f"run={folder}/{name}"], ("auxiliary",))
        )
        jobs.append(Job(f"grid_{name}", [*grid, *pair], (name, "sampler", "grid_fm")))
    return {job.name: job for job in jobs}


def listed(values: list[int]) -> str:
    return "[" + ",".join(map(str, values)) + "]"


def work_through(jobs: dict[str, Job], folder: Path, at_once: int) -> list[str]:
    """Run all commands; the names of those that failed. What builds on a failed one is not started."""
    failed: list[str] = []
    while True:
        running = [job for job in jobs.values() if job.process is not None]
        ready = [job for job in jobs.values() if is_ready(job, jobs, failed)]
        for job in ready[: at_once - len(running)]:
            start(job, folder)
        if not running and not ready:
            return failed
        for job in running:
            if finished(job) not in (None, 0):
                failed.append(job.name)
        time.sleep(0.5)


def is_ready(job: Job, jobs: dict[str, Job], failed: list[str]) -> bool:
    is_new = job.process is None and job.seconds is None and job.name not in failed
    return is_new and all(jobs[name].seconds is not None for name in job.needs)


def start(job: Job, folder: Path) -> None:
    print(f"$ {job.command}", flush=True)
    job.started = time.monotonic()
    with (folder / f"{job.name}.log").open("ab") as log:
        command = [sys.executable, "-m", *job.arguments]
        job.process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=ROOT)


def finished(job: Job) -> int | None:
    """The exit status; None while it runs."""
    assert job.process is not None
    status = job.process.poll()
    if status is None:
        return None
    seconds = time.monotonic() - job.started
    job.process, job.seconds = None, seconds if status == 0 else None
    print(
        f"{job.name}: {'done' if status == 0 else f'exit status {status}'} after {seconds:.0f} s", flush=True
    )
    return status


def collect(options: argparse.Namespace, jobs: dict[str, Job]) -> dict[str, Any]:
    """The rows of every run that has been measured, and what the runs say of themselves."""
    folder = options.folder
    models = {"FM": "fm"} | {f"s = {width:g}": flow_name(width) for width in options.widths}
    widths = {"fm": None} | {flow_name(width): width for width in options.widths}
    rows = [row for name in models.values() for row in measured(folder / f"grid_{name}", widths[name])]
    prior = read_results(folder / "grid_prior/results.json")["results"]["prior"]
    return {
        "data": options.name,
        "experiment": options.experiment,
        "rows": rows,
        "prior_held_out": {key: prior[key] for key in OF_THE_PRIOR},
        "losses": {name: losses(folder / name) for name in ("auxiliary", *models.values(), "sampler")},
        "commands": [{"command": job.command, "seconds": job.seconds} for job in jobs.values()],
    }


def measured(grid: Path, width: float | None) -> list[dict[str, Any]]:
    """A run's rows with their 95 % interval; none where it has not been measured."""
    if not (grid / "results.json").is_file():
        return []
    rows = read_results(grid / "results.json")["results"]["rows"]
    return [
        {"width": width, "z": "gaussian" if width is None else "sampler"}
        | {name: row[name] for name in FIELDS}
        | {"mmd": row["mmd_unbiased"]}
        | dict(zip(("low", "high"), row["mmd_interval"], strict=True))
        for row in rows
    ]


def losses(run: Path) -> dict[str, Any]:
    """The last losses in training and on held-out images, and the speed."""
    events = run / "events.jsonl"
    training, held_out = curve(events, "train", "loss"), curve(events, "validation", "loss")
    speed = curve(events, "train", "images_per_second").values
    last = {"training": training, "held_out": held_out}
    found: dict[str, Any] = {name: float(line.values[-1]) for name, line in last.items() if len(line.values)}
    found["images_seen"] = int(training.images_seen[-1]) if len(training.images_seen) else 0
    return found | ({"images_per_second": float(sorted(speed)[len(speed) // 2])} if len(speed) else {})


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--data", required=True, help="prepared shards of 64 x 64 photographs")
    parser.add_argument("--name", required=True, help="of the set: results/campaign/widths_NAME.json")
    parser.add_argument("--folder", type=Path, required=True, help="of the runs")
    parser.add_argument("--widths", type=float, nargs="+", default=[0, 0.2, 0.3, 0.45, 0.6])
    parser.add_argument(
        "--steps", type=int, nargs="+", default=[1, 2, 4], help="of euler, midpoint and heun3"
    )
    parser.add_argument("--count", type=int, default=3072, help="generated images of each row")
    parser.add_argument("--experiment", default="campaign64")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--train", nargs="*", default=[], metavar="KEY=VALUE", help="for every training")
    parser.add_argument("--evaluate", nargs="*", default=[], metavar="KEY=VALUE", help="for every evaluation")
    parser.add_argument("--at-once", type=int, default=8, help="commands side by side")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    jobs = plan(options)
    failed = work_through(jobs, options.folder, options.at_once)
    certificate = birth_certificate(seed=options.seed)
    results = ROOT / "results" / "campaign" / f"widths_{options.name}.json"
    write_results(results, collect(options, jobs), certificate)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}; their output is in {options.folder}/NAME.log")


if __name__ == "__main__":
    main()
