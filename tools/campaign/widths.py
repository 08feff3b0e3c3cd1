"""Experiment: widths of the flow's start; flows with several widths on one machine.

    python tools/campaign/widths.py --data SHARDS --name pets64 --folder runs/widths_pets64

trains the auxiliary model and the flow-matching baseline (FM), then a latent sampler and a flow for each width s, which
start from N(mu, sigma^2 + s^2), and measures each with `evaluate mode=stages`: images whose z comes from the latent
sampler, from training images and from held-out images. `--widths auto` is the toolkit's automatic choice.
`--starts` adds flows with other starts, as START:s or, with other importance weights, as
START:s:EXPONENT,CAP: scale=3:0 (stage.prior_scale=3), scale=1:0.3:2,100, or a start of starts.py, floor=0.2:0.
Results are written to results/campaign/widths_NAME.json.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from jobs import Job, Jobs, by_name, carry_out, evaluation, losses, parser_of, stages_of, training

from lediflow.evaluation.results import read_results

STARTS = "tools/campaign/starts.py"
OF_THE_PRIOR = (
    "images",
    "nll_nats",
    "kl_nats_per_image",
    "sigma_geometric_mean",
    "sigma_mean",
    "share_at_floor",
)


def flows(options: argparse.Namespace) -> dict[str, tuple[list[str], list[str]]]:
    """The flows by name: the arguments before the command's module, and the overrides of training."""
    widened = "stage.prior_widening={}".format
    found: dict[str, tuple[list[str], list[str]]] = {
        f"s{width}": ([], [widened(width), "stage.prior_scale=1"]) for width in options.widths
    }
    for start in options.starts:
        kind, width, *rest = start.split(":")
        name, overrides = f"{kind}_s{width}".replace("=", ""), [widened(width)]
        for exponent, cap in (weights.split(",") for weights in rest):
            name += f"_p{exponent}_cap{cap}"
            overrides += [f"stage.exponent={exponent}", f"stage.cap={cap}"]
        is_scale, scale = kind.startswith("scale="), kind.removeprefix("scale=")
        before, own = (
            ([], [f"stage.prior_scale={scale}"]) if is_scale else ([STARTS, kind], ["stage.prior_scale=1"])
        )
        found[name] = (before, overrides + own)
    return found


def under(before: list[str], command: list[str]) -> list[str]:
    """A command `-m MODULE ...` with another start: `starts.py START MODULE ...`."""
    return [*before, *command[1:]] if before else command


def plan(options: argparse.Namespace) -> Jobs:
    """Every command, by its name."""
    folder = options.folder
    parent = f"parent={folder}/auxiliary"
    stages = ["mode=stages", *options.stages]
    prior = ["mode=prior", "data.split=heldout", f"run={folder}/auxiliary", f"output={folder}/prior_heldout"]
    jobs = [
        Job("auxiliary", training(options, "stage=auxiliary", f"run={folder}/auxiliary")),
        Job("fm", training(options, "stage=flow", "prior=gaussian", f"run={folder}/fm")),
        Job(
            "sampler",
            training(options, "stage=latent_sampler", parent, f"run={folder}/sampler"),
            ("auxiliary",),
        ),
        Job("prior", evaluation(options, *prior), ("auxiliary",)),
    ]
    first, *_ = flows(options)
    for name, (before, overrides) in flows(options).items():
        run = f"{folder}/flow_{name}"
        train = training(options, "stage=flow", *overrides, parent, f"run={run}")
        pair = [f"run={run}", f"sampler={folder}/sampler", f"output={folder}/stages_{name}"]
        pair += [f"baseline={folder}/fm"] if name == first else []
        needs = (
            f"flow_{name}",
            "sampler",
            "fm" if name == first else f"stages_{first}",
        )  # the first one's features
        jobs += [
            Job(f"flow_{name}", under(before, train), ("auxiliary",)),
            Job(f"stages_{name}", under(before, evaluation(options, *stages, *pair)), needs),
        ]
    return by_name(jobs)


def collect(options: argparse.Namespace) -> dict[str, Any]:
    """The rows of every flow that has been measured, measures of the prior, and the losses of all runs."""
    folder, names = options.folder, list(flows(options))
    runs = ("auxiliary", "fm", "sampler", *(f"flow_{name}" for name in names))
    measured = {name: folder / f"stages_{name}" / "stages.json" for name in names}
    prior = folder / "prior_heldout/results.json"
    return {
        "flows": {
            name: {"width": width_of(folder / f"flow_{name}")} | stages_of(path)
            for name, path in measured.items()
            if path.is_file()
        },
        "prior_held_out": {
            key: read_results(prior)["results"]["prior"][key] for key in OF_THE_PRIOR if prior.is_file()
        },
        "losses": {name: losses(folder / name) for name in runs},
    }


def width_of(run: Path) -> float:
    """The s that a flow was trained with, also if `auto` chose it."""
    return float(json.loads((run / "export/config.json").read_text())["prior_widening"])


def main() -> None:
    parser = parser_of(__doc__, "campaign64")
    parser.add_argument("--widths", nargs="+", default=["0", "0.2", "0.3", "0.45", "0.6", "auto"])
    parser.add_argument("--starts", nargs="*", default=[], metavar="START:s[:EXPONENT,CAP]")
    parser.add_argument(
        "--stages", nargs="*", default=[], metavar="KEY=VALUE", help="for evaluate mode=stages"
    )
    options = parser.parse_args()
    carry_out(options, "widths", plan(options), lambda: collect(options))


if __name__ == "__main__":
    main()
