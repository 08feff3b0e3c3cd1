"""Experiment: does `evaluate mode=stages` identify a fault? Chains with deliberate faults, and their verdicts.

    python tools/campaign/verdicts.py --source PICTURES --folder runs/verdicts [--codec TAESD_FOLDER]

    plain     no fault: all stages trained on the same number of images, the flow's start widened by `auto`
    sampler   as plain, with a latent sampler that was trained on 1 % of its images
    memory    all stages trained on 300 of the pictures, the auxiliary model for 500 epochs
    narrow    as plain, with an auxiliary model whose log variance is at most NARROW, and a start that is not widened
    codec     all stages trained on TAESD's latents of the pictures, evaluated against the pictures (with --codec)

All are ordinary commands. Running the script again continues interrupted ones. Results are written to
results/campaign/verdicts.json: for each chain the verdict, its parts, the rows and the losses.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
from jobs import ROOT, Job, Jobs, session_clock, work_through
from PIL import Image

from lediflow.data.shards.reader import ShardReader
from lediflow.evaluation.modes.stages.record import STAGES_FILE, read_stages
from lediflow.evaluation.results import birth_certificate, read_results, write_results
from lediflow.tracking.event_log import curve

RESULTS = ROOT / "results" / "campaign" / "verdicts.json"
FEW, EPOCHS, SHARE = 300, 500, 0.01
NARROW = -6.0  # ceiling of the narrow prior's log-variance: sigma at most 0.05
EXPECTED = {"sampler": "sampler", "memory": "prior", "narrow": "prior", "codec": "codec"}
CAUSES = {"memory": "memorising", "narrow": "narrow"}
OF_LATENTS = (
    "model.channels=4",
    "data.flip_horizontal=false",
)  # mirrored latents are not those of mirrored pictures
OF_A_ROW = ("z", "solver", "steps", "nfe", "images", "real_images", "mmd_name", "mmd", "low", "high")


def prepare(options: argparse.Namespace) -> None:
    """Write shards of all pictures, of the first FEW pictures, and with a codec of their latents."""
    size, folder = f"size={options.size}", options.folder
    everything = [
        "-m",
        "lediflow.prepare",
        f"source={options.source}",
        f"output={folder}/many",
        size,
        "mode=rgb",
    ]
    done(work_through({"many": Job("many", everything)}, folder, 1, nothing))
    few = folder / "few_pictures"
    if not few.is_dir():
        reader = ShardReader.open(folder / "many")
        few.mkdir()
        pixels = reader.stored(np.arange(FEW)).permute(0, 2, 3, 1).numpy()
        for number, picture in enumerate(pixels):
            Image.fromarray(picture).save(few / f"{number:04d}.png")
    jobs = {
        "few": Job(
            "few", ["-m", "lediflow.prepare", f"source={few}", f"output={folder}/few", size, "mode=rgb"]
        )
    }
    if options.codec:
        made = f"output={folder}/latents"
        codec = ["codec.name=taesd", f"codec.path={options.codec}", f"device={options.device}"]
        jobs["latents"] = Job("latents", ["-m", "lediflow.encode", f"source={folder}/many", made, *codec])
    done(work_through(jobs, folder, options.at_once, nothing))


def plan(options: argparse.Namespace) -> Jobs:
    """Every training and every measurement, by its name."""
    folder, images = options.folder, options.images
    jobs: Jobs = {}

    def train(name: str, stage: str, shards: str, count: int, *more: str, parent: str | None = None) -> None:
        given = ["-m", "lediflow.train", f"experiment={options.experiment}", f"stage={stage}"]
        given += [f"run={folder}/{name}", f"data.path={folder}/{shards}", f"train.images={count}"]
        given += [f"data.held_out_fraction={options.held_out}", "synthetic_images=0"]
        given += [f"engine.device={options.device}", f"seed={options.seed}", *options.train, *more]
        given += [f"parent={folder}/{parent}"] if parent else []
        jobs[name] = Job(name, given, (parent,) if parent else ())

    def chain(name: str, auxiliary: str, flow: str, sampler: str, shards: str, *more: str) -> None:
        given = [
            "-m",
            "lediflow.evaluate",
            "mode=stages",
            f"run={folder}/{flow}",
            f"sampler={folder}/{sampler}",
        ]
        given += [f"data.path={folder}/{shards}", f"output={folder}/{name}_stages", f"count={options.count}"]
        given += ["precision=float32"]
        given += [f"paths.runs={folder}", f"device={options.device}", f"seed={options.seed}", *more]
        jobs[f"{name}_stages"] = Job(f"{name}_stages", given + options.evaluate, (auxiliary, flow, sampler))

    def whole(name: str, shards: str, count: int, longer: int, *more: str, wide: str = "auto") -> None:
        """Auxiliary model, flow and sampler of one chain."""
        train(f"{name}_auxiliary", "auxiliary", shards, longer, *more)
        parent = f"{name}_auxiliary"
        flow_options = [item for item in more if not item.startswith("model.auxiliary.logvar")]
        train(
            f"{name}_flow",
            "flow",
            shards,
            count,
            f"stage.prior_widening={wide}",
            *flow_options,
            parent=parent,
        )
        train(f"{name}_sampler", "latent_sampler", shards, count, *flow_options, parent=parent)

    whole("plain", "many", images, images)
    chain("plain", "plain_auxiliary", "plain_flow", "plain_sampler", "many")
    train("hardly_sampler", "latent_sampler", "many", max(1, round(SHARE * images)), parent="plain_auxiliary")
    chain("sampler", "plain_auxiliary", "plain_flow", "hardly_sampler", "many")
    whole("memory", "few", images, EPOCHS * FEW)
    chain("memory", "memory_auxiliary", "memory_flow", "memory_sampler", "few")
    whole("narrow", "many", images, images, f"model.auxiliary.logvar_ceiling={NARROW}", wide="0")
    chain("narrow", "narrow_auxiliary", "narrow_flow", "narrow_sampler", "many")
    if options.codec:
        of_latents = [f"model.image_size={options.size // 8}", *OF_LATENTS, *options.train_latents]
        whole("codec", "latents", images, images, *of_latents)
        chain("codec", "codec_auxiliary", "codec_flow", "codec_sampler", "latents",
              f"data.photographs={folder}/many", f"codec_path={options.codec}")  # fmt: skip
    return {name: job for name, job in jobs.items() if is_wanted(name, jobs, options.only)}


def is_wanted(name: str, jobs: Jobs, only: list[str]) -> bool:
    """Whether a requested chain needs the job."""
    wanted = (
        [f"{chain}_stages" for chain in only] if only else [key for key in jobs if key.endswith("_stages")]
    )
    return name in wanted or any(name in jobs[key].needs for key in wanted if key in jobs)


def collect(folder: Path, jobs: Jobs) -> dict[str, Any]:
    """The verdict, rows and losses of every chain that has been measured."""
    chains = {}
    for name in ("plain", *EXPECTED):
        path = folder / f"{name}_stages" / STAGES_FILE
        if path.is_file():
            found = read_stages(path)
            chains[name] = {
                "expected": EXPECTED.get(name),
                "expected_cause": CAUSES.get(name, ""),
                "verdict": found["verdict"],
                "rows": [{key: row[key] for key in OF_A_ROW if key in row} for row in found["rows"]],
                "real": found["real"],
                "codec_floor": found["codec_floor"],
                "losses": found["losses"],
            }
    before = seconds_before()
    commands = [
        {
            "command": job.command,
            "seconds": max(filter(None, (job.seconds, before.get(job.command))), default=None),
        }
        for job in jobs.values()
    ]
    return {"chains": chains, "images_seen": images_seen(folder, jobs), "commands": commands}


def seconds_before() -> dict[str, float]:
    """Seconds by command in the existing results: a command whose work is already done would take less now."""
    if not RESULTS.is_file():
        return {}
    commands = read_results(RESULTS)["results"]["commands"]
    return {entry["command"]: entry["seconds"] for entry in commands if entry["seconds"]}


def images_seen(folder: Path, jobs: Jobs) -> dict[str, int]:
    """Images seen by each training that has begun."""
    seen = {name: curve(folder / name / "events.jsonl", "train", "loss").images_seen for name in jobs}
    return {name: int(images[-1]) for name, images in seen.items() if len(images)}


def nothing() -> None:
    """Collects nothing: preparation has no results."""


def done(failed: list[str]) -> None:
    if failed:
        sys.exit(f"failed: {', '.join(failed)}; the output of NAME is in NAME.log in the folder")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--source", required=True, help="folder or archive of a few thousand colour pictures")
    parser.add_argument("--folder", type=Path, required=True, help="folder for shards and runs")
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument(
        "--images", type=int, default=200_000, help="images that every stage of a chain is trained on"
    )
    parser.add_argument("--held-out", type=float, default=0.1, help="fraction of the pictures")
    parser.add_argument("--count", type=int, default=1024, help="generated images per row")
    parser.add_argument("--codec", help="folder of TAESD's weights; without it the chain `codec` is omitted")
    parser.add_argument(
        "--only", nargs="*", default=[], choices=["plain", *EXPECTED], help="run only these chains"
    )
    parser.add_argument("--experiment", default="smoke")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--train", nargs="*", default=[], metavar="KEY=VALUE", help="overrides of every training"
    )
    parser.add_argument(
        "--train-latents",
        nargs="*",
        default=[],
        metavar="KEY=VALUE",
        help="overrides of trainings on latents",
    )
    parser.add_argument(
        "--evaluate", nargs="*", default=[], metavar="KEY=VALUE", help="overrides of every evaluation"
    )
    parser.add_argument("--at-once", type=int, default=4, help="number of commands in parallel")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    prepare(options)
    jobs = plan(options)
    certificate = birth_certificate(seed=options.seed)
    sessions = session_clock(RESULTS, certificate, options.at_once)

    def keep() -> None:
        write_results(RESULTS, {"sessions": sessions()} | collect(options.folder, jobs), certificate)

    failed = work_through(jobs, options.folder, options.at_once, keep)
    keep()
    for name, chain in collect(options.folder, jobs)["chains"].items():
        verdict = chain["verdict"]
        print(
            f"{name}: limits {verdict['limits']} {verdict['cause']} (made: {chain['expected']}). {verdict['text']}"
        )
    done(failed)


if __name__ == "__main__":
    main()
