"""Experiment: the whole chain with several settings, compared with flow matching; for small sets (memorising).

    python tools/campaign/small_sets.py --data SHARDS --unseen OTHER_SHARDS --name faces4000 --folder runs/faces4000 \
        --cures base= dropout=model.auxiliary.levels.0.dropout=0.1,model.velocity.levels.0.dropout=0.1 \
        wide=of:base,stage.prior_widening=0.6 --baselines fm=

A cure is NAME=OVERRIDE,OVERRIDE,... for the auxiliary model and the flow (and the sampler, where an override begins
with `all:`; `aux:`, `flow:` and `sampler:` give it to one of them). `of:CURE` takes the auxiliary model and the sampler
of an earlier cure, so that only the flow is trained, and the sampler where it has overrides. A baseline is flow
matching from Gaussian noise with its overrides.

Every chain is measured by `evaluate mode=stages` against all photographs of the shards. With `--unseen`, every flow is
also measured against photographs that no model saw, and its images are compared with its training images: copies score
well against photographs that they were copied from. Results are written to results/campaign/small_NAME.json.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any, NamedTuple

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

from lediflow.evaluation.results import read_results
from lediflow.records import read_json

STAGES = {"aux": "auxiliary", "flow": "flow", "sampler": "latent_sampler"}
SAME = "of:"  # prefix that names the earlier cure whose auxiliary model and sampler are used
MEANT = re.compile(r"(?:(all|aux|flow|sampler):)?(.*)", re.DOTALL)  # the stage, the override for it
QUALITY = ("steps", "nfe", "solver", "mmd_unbiased", "mmd_interval", "precision", "recall")
COPIES = ("steps", "nearest_training")


class Cure(NamedTuple):
    """A setting of a chain: the runs of its stages by short name, those that it trains itself, its overrides."""

    name: str
    runs: dict[str, str]
    trains: list[str]
    overrides: list[str]


def cures_of(options: argparse.Namespace) -> list[Cure]:
    """The chains to train; exits where `of:` names no earlier one."""
    found: dict[str, Cure] = {}
    for name, given in named_overrides(options.cures).items():
        same = [each.removeprefix(SAME) for each in given if each.startswith(SAME)]
        if unknown := [each for each in same if each not in found]:
            raise SystemExit(
                f"{name}: of:{unknown[0]} names no earlier cure; known: {', '.join(found) or 'none'}"
            )
        overrides = [each for each in given if not each.startswith(SAME)]
        trains = [*STAGES]
        if same:
            trains = ["flow", *(["sampler"] if meant_for("sampler", overrides) else [])]
        own = {stage: f"{name}_{stage}" for stage in trains}
        found[name] = Cure(name, (found[same[0]].runs if same else {}) | own, trains, overrides)
    return [*found.values()]


def meant_for(stage: str, overrides: list[str]) -> list[str]:
    """The overrides of a stage; without a prefix they are for the auxiliary model and the flow."""
    split = [MEANT.fullmatch(override).groups() for override in overrides]  # type: ignore[union-attr]
    return [value for to, value in split if to in (stage, "all") or (not to and stage != "sampler")]


def plan(options: argparse.Namespace) -> Jobs:
    """Every command, by its name."""
    folder, baselines = options.folder, named_overrides(options.baselines)
    jobs = []
    for name, overrides in baselines.items():
        arguments = ["stage=flow", "prior=gaussian", *overrides, f"run={folder}/{name}"]
        jobs += [
            Job(name, training(options, *arguments)),
            *others(options, name, [f"run={folder}/{name}"], (name,)),
        ]
    first = next(iter(baselines), None)
    for index, cure in enumerate(cures_of(options)):
        runs = cure.runs
        for stage in cure.trains:
            own = [] if stage == "aux" else [f"parent={folder}/{runs['aux']}"]
            arguments = [
                f"stage={STAGES[stage]}",
                *own,
                *meant_for(stage, cure.overrides),
                f"run={folder}/{runs[stage]}",
            ]
            jobs.append(
                Job(runs[stage], training(options, *arguments), () if stage == "aux" else (runs["aux"],))
            )
        pair = [f"run={folder}/{runs['flow']}", f"sampler={folder}/{runs['sampler']}"]
        needs = (runs["flow"], runs["sampler"])
        baseline = [f"baseline={folder}/{first}"] if first and not index else []
        stages = evaluation(
            options, "mode=stages", *options.stages, *pair, *baseline, f"output={folder}/stages_{cure.name}"
        )
        waits = needs + ((first,) if first and not index else ())
        jobs += [Job(f"stages_{cure.name}", stages, waits), *others(options, runs["flow"], pair, needs)]
    return by_name(jobs)


def others(options: argparse.Namespace, run: str, pair: list[str], needs: tuple[str, ...]) -> list[Job]:
    """Evaluations on unseen photographs and against the training images; none without `--unseen`."""
    if not options.unseen:
        return []
    unseen = [f"data.path={options.unseen}", f"output={options.folder}/unseen_{run}", *options.quality]
    copies = [f"output={options.folder}/copies_{run}", f"step_counts=[{options.copies_steps}]"]
    return [
        Job(f"unseen_{run}", evaluation(options, *unseen, *pair), needs),
        Job(f"copies_{run}", evaluation(options, *copies, *pair), needs),
    ]


def collect(options: argparse.Namespace) -> dict[str, Any]:
    """Rows of every measured chain, and losses and widths of the runs."""
    folder, cures = options.folder, cures_of(options)
    measured = {cure.name: folder / f"stages_{cure.name}" / "stages.json" for cure in cures}
    baselines = [*named_overrides(options.baselines)]
    runs = dict.fromkeys(
        [*baselines, *(cure.runs[stage] for cure in cures for stage in ("aux", "flow", "sampler"))]
    )
    flows = {name: name for name in baselines} | {cure.name: cure.runs["flow"] for cure in cures}
    return {
        "cures": {name: stages_of(path) for name, path in measured.items() if path.is_file()},
        "unseen": rows_of(folder, "unseen", flows, QUALITY),
        "copies": rows_of(folder, "copies", flows, COPIES),
        "widths": {cure.name: width_of(folder / cure.runs["flow"]) for cure in cures},
        "losses": {run: losses(folder / run) for run in runs},
    }


def rows_of(
    folder: Path, kind: str, flows: dict[str, str], keys: tuple[str, ...]
) -> dict[str, list[dict[str, Any]]]:
    """Rows of the finished evaluations of a kind, by cure or baseline, with the keys that they have."""
    paths = {name: folder / f"{kind}_{run}" / "results.json" for name, run in flows.items()}
    return {
        name: [{key: row[key] for key in keys if key in row} for row in read_results(path)["results"]["rows"]]
        for name, path in paths.items()
        if path.is_file()
    }


def width_of(run: Path) -> dict[str, float] | None:
    """k and s of a finished flow's start, also where the toolkit chose them."""
    if not (config := run / "export/config.json").is_file():
        return None
    facts = read_json(config, "train the flow again")
    return {"k": facts["prior_scale"], "s": facts["prior_widening"]}


def main() -> None:
    parser = parser_of(__doc__, "campaign64")
    parser.add_argument("--cures", nargs="+", default=["base="], metavar="NAME=OVERRIDE,...")
    parser.add_argument("--baselines", nargs="*", default=["fm="], metavar="NAME=OVERRIDE,...")
    parser.add_argument("--unseen", help="prepared shards of photographs that no model is trained on")
    for name, of in (("stages", "evaluate mode=stages"), ("quality", "the evaluation on unseen photographs")):
        parser.add_argument(f"--{name}", nargs="*", default=[], metavar="KEY=VALUE", help=f"for {of}")
    parser.add_argument(
        "--copies-steps", type=int, default=2, help="solver steps of the images looked at for copies"
    )
    options = parser.parse_args()
    carry_out(options, "small", plan(options), lambda: collect(options))


if __name__ == "__main__":
    main()
