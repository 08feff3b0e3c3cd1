"""Experiment: several latent samplers with one auxiliary model and one flow.

    python tools/campaign/samplers.py --data SHARDS --name pets64 --folder runs/samplers_pets64 \
        --auxiliary AUXILIARY_RUN --flow FLOW_RUN \
        --samplers base= long=train.images=4000000 wide=model.latent_sampler.levels.0.width=512 ...

Each sampler is NAME=OVERRIDE,OVERRIDE,...; each solve of w -> z in --solves is SOLVER:STEPS. The override
`targets:means` trains on the posteriors' means instead of draws (latent_means.py). Results are written to
results/campaign/samplers_NAME.json.
"""

from __future__ import annotations

import argparse
from typing import Any

from jobs import (
    Job,
    Jobs,
    by_name,
    carry_out,
    evaluation,
    losses,
    named_overrides,
    parser_of,
    stages_of,
    training,
)

MEANS, ON_MEANS = "targets:means", "tools/campaign/latent_means.py"


def plan(options: argparse.Namespace) -> Jobs:
    """Every command, by its name."""
    folder, jobs = options.folder, []
    for name, overrides in named_overrides(options.samplers).items():
        run = f"{folder}/sampler_{name}"
        given = [override for override in overrides if override != MEANS]
        train = training(options, "stage=latent_sampler", f"parent={options.auxiliary}", *given, f"run={run}")
        jobs.append(Job(f"sampler_{name}", [ON_MEANS, *train[1:]] if MEANS in overrides else train))
        for solve in options.solves:
            solver, steps = solve.split(":")
            how = [f"latent_solver={solver}", f"latent_steps={steps}", *options.stages]
            job = f"stages_{name}_{solver}{steps}"
            pair = [f"run={options.flow}", f"sampler={run}", f"output={folder}/{job}"]
            needs = (f"sampler_{name}",)
            jobs.append(Job(job, evaluation(options, "mode=stages", *how, *pair), needs))
    return by_name(jobs)


def collect(options: argparse.Namespace) -> dict[str, Any]:
    """The rows of every sampler and solve that has been measured."""
    folder, names = options.folder, named_overrides(options.samplers)
    measured = {
        f"{name}, {solve}": folder / f"stages_{name}_{solve.replace(':', '')}" / "stages.json"
        for name in names
        for solve in options.solves
    }
    return {
        "samplers": {name: stages_of(path) for name, path in measured.items() if path.is_file()},
        "losses": {name: losses(folder / f"sampler_{name}") for name in names},
    }


def main() -> None:
    parser = parser_of(__doc__, "campaign64")
    parser.add_argument("--auxiliary", required=True, help="run folder")
    parser.add_argument("--flow", required=True, help="run folder")
    parser.add_argument("--samplers", nargs="+", default=["base="], metavar="NAME=OVERRIDE,...")
    parser.add_argument("--solves", nargs="+", default=["midpoint:4"], metavar="SOLVER:STEPS")
    parser.add_argument(
        "--stages", nargs="*", default=[], metavar="KEY=VALUE", help="for evaluate mode=stages"
    )
    options = parser.parse_args()
    carry_out(options, "samplers", plan(options), lambda: collect(options))


if __name__ == "__main__":
    main()
