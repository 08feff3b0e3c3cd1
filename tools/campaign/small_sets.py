"""Cures for memorising on few pictures: the whole chain under each, beside flow matching, side by side.

    python tools/campaign/small_sets.py --data SHARDS --name faces4000 --folder runs/small_faces4000 \
        --cures base= dropout=model.auxiliary.levels.0.dropout=0.1,model.auxiliary.levels.1.dropout=0.1 ...

A cure is NAME=OVERRIDE,OVERRIDE,... for the auxiliary model and the flow (and the sampler, where an override begins
with `all:`; `aux:`, `flow:` and `sampler:` give it to one of them). Every chain is measured by `evaluate mode=stages`
against all photographs of the shards. Numbers come to results/campaign/small_NAME.json.
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

STAGES = {"aux": "auxiliary", "flow": "flow", "sampler": "latent_sampler"}


def meant_for(stage: str, overrides: list[str]) -> list[str]:
    """Those of a stage: without a prefix they are for the auxiliary model and the flow."""
    split = [override.split(":", 1) if ":" in override else ["", override] for override in overrides]
    return [value for to, value in split if to in (stage, "all") or (not to and stage != "sampler")]


def plan(options: argparse.Namespace) -> Jobs:
    """Every command, by its name."""
    folder = options.folder
    jobs = [Job("fm", training(options, "stage=flow", "prior=gaussian", *options.fm, f"run={folder}/fm"))]
    for name, overrides in named_overrides(options.cures).items():
        runs = {stage: f"{folder}/{name}_{stage}" for stage in STAGES}
        parent = f"parent={runs['aux']}"
        for stage, full in STAGES.items():
            own = [] if stage == "aux" else [parent]
            arguments = [f"stage={full}", *own, *meant_for(stage, overrides), f"run={runs[stage]}"]
            needs = () if stage == "aux" else (f"{name}_aux",)
            jobs.append(Job(f"{name}_{stage}", training(options, *arguments), needs))
        pair = [f"run={runs['flow']}", f"sampler={runs['sampler']}", f"baseline={folder}/fm"]
        stages = evaluation(options, "mode=stages", *options.stages, *pair, f"output={folder}/stages_{name}")
        jobs.append(Job(f"stages_{name}", stages, (f"{name}_flow", f"{name}_sampler", "fm")))
    return by_name(jobs)


def collect(options: argparse.Namespace) -> dict[str, Any]:
    """The rows of every cure that has been measured, and what the runs say of themselves."""
    folder, names = options.folder, list(named_overrides(options.cures))
    measured = {name: folder / f"stages_{name}" / "stages.json" for name in names}
    runs = ["fm", *(f"{name}_{stage}" for name in names for stage in STAGES)]
    return {
        "cures": {name: stages_of(path) for name, path in measured.items() if path.is_file()},
        "losses": {run: losses(folder / run) for run in runs},
    }


def main() -> None:
    parser = parser_of(__doc__, "campaign64")
    parser.add_argument("--cures", nargs="+", default=["base="], metavar="NAME=OVERRIDE,...")
    parser.add_argument(
        "--fm", nargs="*", default=[], metavar="KEY=VALUE", help="for the baseline's training"
    )
    parser.add_argument(
        "--stages", nargs="*", default=[], metavar="KEY=VALUE", help="for evaluate mode=stages"
    )
    options = parser.parse_args()
    carry_out(options, "small", plan(options), lambda: collect(options))


if __name__ == "__main__":
    main()
