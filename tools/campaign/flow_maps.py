"""Experiment: a chain and a flow-matching baseline as teachers, and the flow maps that are distilled from them.

    python tools/campaign/flow_maps.py --data SHARDS --name faces64 --folder runs/maps_faces64 \
        --maps base= four=stage.teacher_steps=4 --distil train.learning_rate=1e-4

The teachers are the three models of the experiment and the baseline; `--chain AUXILIARY FLOW SAMPLER` and `--baseline`
take finished runs instead. Each map is NAME=OVERRIDE,OVERRIDE,...: of the latent sampler, of the flow and of the
baseline. With `--sampled teacher` or `map`, paths of the flow's teacher also start from latents of the sampler, or of
its map of the same name (`stage.sampled_share`); not those of a map NAME=stage.objective=meanflow, which has no paths.

With `--reflow`, straightened flows are trained, too; with `--widths wide=stage.prior_scale=3,stage.prior_widening=0.5`
a flow of another width, and its map.

Everything is sampled at 1, 2 and 4 calls, so that a row of one call stands next to the teacher's of one, two
and four evaluations. Rows are measured against the photographs in --data; results are written to
results/campaign/flow_maps_NAME.json.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, NamedTuple

from jobs import Job, Jobs, by_name, carry_out, evaluation, losses, named_overrides, parser_of, training

from lediflow.evaluation.results import read_results

CALLS = "step_counts=[1,2,4]"
JUMPS, EULER, MIDPOINT = (f"solver={name}" for name in ("jump", "euler", "midpoint"))
ONE_JUMP = ("latent_solver=jump", "latent_steps=1")
MEAN_FLOW = "stage.objective=meanflow"
QUALITY = ("steps", "nfe", "solver", "mmd_unbiased", "mmd_interval", "precision", "recall")


class Measured(NamedTuple):
    """A row of the comparison: runs of the flow and of the latent sampler (None: the baseline), and their solvers."""

    flow: str
    sampler: str | None
    how: tuple[str, ...]


class Teachers(NamedTuple):
    """Run folders."""

    auxiliary: str
    flow: str
    sampler: str
    baseline: str


def teachers_of(options: argparse.Namespace) -> Teachers:
    """The given runs, or those that are trained first."""
    own = [f"{options.folder}/{name}" for name in ("auxiliary", "flow", "sampler")]
    auxiliary, flow, sampler = options.chain or own
    return Teachers(auxiliary, flow, sampler, options.baseline or f"{options.folder}/fm")


def teacher_jobs(options: argparse.Namespace, teachers: Teachers) -> list[Job]:
    """The trainings of teachers that were not given."""
    jobs = []
    if not options.chain:
        parent = f"parent={teachers.auxiliary}"
        jobs += [
            Job("auxiliary", training(options, "stage=auxiliary", f"run={teachers.auxiliary}")),
            Job("flow", training(options, "stage=flow", parent, f"run={teachers.flow}"), ("auxiliary",)),
            Job(
                "sampler",
                training(options, "stage=latent_sampler", parent, f"run={teachers.sampler}"),
                ("auxiliary",),
            ),
        ]
    if not options.baseline:
        jobs.append(Job("fm", training(options, "stage=flow", "prior=gaussian", f"run={teachers.baseline}")))
    return jobs


def student_jobs(options: argparse.Namespace, teachers: Teachers, known: set[str]) -> list[Job]:
    """The trainings of all maps, and of straightened flows; each waits for its teacher if that is trained here."""
    kinds = {
        "sampler": ["stage=latent_sampler", f"parent={teachers.auxiliary}", f"teacher={teachers.sampler}"],
        "flow": ["stage=flow", f"parent={teachers.auxiliary}", f"teacher={teachers.flow}"],
        "fm": ["stage=flow", "prior=gaussian", f"teacher={teachers.baseline}"],
    }
    samplers = {"teacher": teachers.sampler, "map": f"{options.folder}/sampler_{{}}"}
    objectives = {name: ("flow_map", own) for name, own in named_overrides(options.maps).items()}
    if options.reflow:
        objectives["reflow"] = ("reflow", [])
    jobs = []
    for name, (objective, own) in objectives.items():
        for kind, given in kinds.items():
            if (name, kind) == ("reflow", "sampler"):
                continue
            words = [*given, f"stage.objective={objective}", *options.distil, *own]
            job, needs = f"{kind}_{name}", [*({kind} & known)]
            if kind == "flow" and options.sampled and MEAN_FLOW not in own:
                source = "teacher" if name == "reflow" else options.sampled
                words.append(f"sampler={samplers[source].format(name)}")
                needs += [f"sampler_{name}"] if source == "map" else [*({"sampler"} & known)]
            jobs.append(Job(job, training(options, *words, f"run={options.folder}/{job}"), tuple(needs)))
    return jobs


def width_jobs(options: argparse.Namespace, teachers: Teachers, known: set[str]) -> list[Job]:
    """For each further width of the learned prior: a flow, and its map with the options of the first map."""
    jobs, parent = [], f"parent={teachers.auxiliary}"
    _, first = next(iter(named_overrides(options.maps).items()))
    for name, width in named_overrides(options.widths).items():
        flow = f"{options.folder}/teacher_{name}"
        start = training(options, "stage=flow", parent, *width, f"run={flow}")
        jobs.append(Job(f"teacher_{name}", start, tuple({"auxiliary"} & known)))
        words = ["stage=flow", parent, f"teacher={flow}", "stage.objective=flow_map", *options.distil, *first]
        needs = [f"teacher_{name}"]
        if options.sampled:
            words.append(f"sampler={teachers.sampler}")
            needs += [*({"sampler"} & known)]
        run = f"run={options.folder}/flow_{name}"
        jobs.append(Job(f"flow_{name}", training(options, *words, *width, run), tuple(needs)))
    return jobs


def comparison(options: argparse.Namespace, teachers: Teachers) -> dict[str, Measured]:
    """Every row's runs and settings, by name."""
    folder, flow, sampler, fm = options.folder, teachers.flow, teachers.sampler, teachers.baseline
    rows = dict[str, Measured]()
    for solver in (EULER, MIDPOINT):
        name = solver.removeprefix("solver=")
        rows |= {
            f"flow_{name}": Measured(flow, sampler, (solver,)),
            f"fm_{name}": Measured(fm, None, (solver,)),
        }
    for name in named_overrides(options.maps):
        flow_map, sampler_map = f"{folder}/flow_{name}", f"{folder}/sampler_{name}"
        rows[f"sampler_{name}"] = Measured(flow, sampler_map, (MIDPOINT, *ONE_JUMP))
        rows[f"flow_{name}"] = Measured(flow_map, sampler, (JUMPS,))
        rows[f"both_{name}"] = Measured(flow_map, sampler_map, (JUMPS, *ONE_JUMP))
        rows[f"fm_{name}"] = Measured(f"{folder}/fm_{name}", None, (JUMPS,))
    for name in named_overrides(options.widths):
        rows[f"teacher_{name}"] = Measured(f"{folder}/teacher_{name}", sampler, (MIDPOINT,))
        rows[f"flow_{name}"] = Measured(f"{folder}/flow_{name}", sampler, (JUMPS,))
    if options.reflow:
        rows["flow_reflow"] = Measured(f"{folder}/flow_reflow", sampler, (EULER,))
        rows["fm_reflow"] = Measured(f"{folder}/fm_reflow", None, (EULER,))
    return rows


def plan(options: argparse.Namespace) -> Jobs:
    """Every command, by its name."""
    teachers = teachers_of(options)
    jobs = teacher_jobs(options, teachers)
    known = {job.name for job in jobs}
    jobs += [*student_jobs(options, teachers, known), *width_jobs(options, teachers, known)]
    trained = {f"{options.folder}/{job.name}": job.name for job in jobs}
    for name, row in comparison(options, teachers).items():
        runs = [run for run in (row.flow, row.sampler) if run is not None]
        pair = [f"run={row.flow}", *([f"sampler={row.sampler}"] if row.sampler else [])]
        words = [*pair, *row.how, CALLS, f"output={options.folder}/quality_{name}"]
        needs = tuple(trained[run] for run in runs if run in trained)
        jobs.append(Job(f"quality_{name}", evaluation(options, *words), needs))
    return by_name(jobs)


def collect(options: argparse.Namespace) -> dict[str, Any]:
    """The measured rows by name, and the losses of the trained runs."""
    teachers = teachers_of(options)
    measured = {
        name: options.folder / f"quality_{name}" / "results.json" for name in comparison(options, teachers)
    }
    runs = [job for job in plan(options) if not job.startswith("quality_")]
    finished = [path for path in measured.values() if path.is_file()]
    return {
        **(facts_of(finished[0]) if finished else {}),
        "rows": {name: rows_of(path) for name, path in measured.items() if path.is_file()},
        "losses": {run: losses(options.folder / run) for run in runs},
    }


def facts_of(path: Path) -> dict[str, Any]:
    """What all rows have in common, from a finished evaluation."""
    row = read_results(path)["results"]["rows"][0]
    return {
        "mmd_name": row["mmd_name"],
        "images": row["sample_images"],
        "reference_images": row["reference_images"],
    }


def rows_of(path: Path) -> list[dict[str, Any]]:
    """Rows of a finished evaluation, with the keys of QUALITY that they have."""
    rows = read_results(path)["results"]["rows"]
    return [{key: row[key] for key in QUALITY if key in row} for row in rows]


def main() -> None:
    parser = parser_of(__doc__, "campaign64")
    parser.add_argument("--maps", nargs="+", default=["base="], metavar="NAME=OVERRIDE,...")
    parser.add_argument("--distil", nargs="*", default=[], metavar="KEY=VALUE", help="of every map")
    parser.add_argument("--chain", nargs=3, metavar=("AUXILIARY", "FLOW", "SAMPLER"), help="finished runs")
    parser.add_argument("--baseline", metavar="RUN", help="a finished flow with prior=gaussian")
    parser.add_argument(
        "--sampled", choices=("teacher", "map"), help="where latents of the flow's paths are drawn, too"
    )
    parser.add_argument(
        "--widths",
        nargs="*",
        default=[],
        metavar="NAME=OVERRIDE,...",
        help="further widths of the prior, each with a flow and its map",
    )
    parser.add_argument("--reflow", action="store_true", help="train straightened flows, too")
    options = parser.parse_args()
    carry_out(options, "flow_maps", plan(options), lambda: collect(options))


if __name__ == "__main__":
    main()
