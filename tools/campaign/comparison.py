"""Experiment: every method on one set, one backbone, the same number of images seen: the comparison of the paper.

    python tools/campaign/comparison.py --data SHARDS --name scenes64 --folder runs/scenes64

Methods, chosen with `--methods`:

fm           flow matching from Gaussian noise
ot           OT-CFM: the same with noise and images paired within a micro-batch (stage.coupling=optimal_transport)
paper        LeDiFlow as in the paper: the flow starts from the prior as it is
auto         LeDiFlow with the default start
wide         LeDiFlow with a start of `--wide-scale` (3) sigma and s = `--wide`
wide_map     flow map of `wide`, and fm_map of `fm`, distilled with the overrides of `--distil`
long_map     wide_map, distilled with the overrides of `--longer` in addition
wide_mean    wide_map by MeanFlow's identity in place of the teacher's paths, with the overrides of `--distil`
both_maps    wide_map with latents from a flow map of the latent sampler
fm_reflow    `fm`, straightened

Each is measured by measure.py: at 1, 2, 4, 8, 16 evaluations (Euler, then midpoint) and 6, 12 (Heun3), maps at 1, 2, 4
calls, against all photographs and against the held-out ones, with the share of copies among its images. `--unmeasured`
names methods that are trained as teachers only: with a seed and a kind of GPU that they were measured with before, they
are the same models. `--seeds` trains and measures everything once for each seed. Results are written to
results/campaign/comparison_NAME.json.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, NamedTuple

from jobs import Job, Jobs, by_name, carry_out, evaluation, losses, parser_of, training

from lediflow.evaluation.results import read_results

GAUSSIAN = ("prior=gaussian",)
SOLVED = ("euler:1", *(f"midpoint:{steps}" for steps in (1, 2, 4, 8)), "heun3:2", "heun3:4")
JUMPS, STRAIGHT = (tuple(f"{solver}:{steps}" for steps in (1, 2, 4)) for solver in ("jump", "euler"))
OF_A_ROW = ("solver", "steps", "nfe", "mmd_unbiased", "mmd_interval", "precision", "recall")
OF_COPIES = ("share_closer", "share_memorised", "share_identical")


class Method(NamedTuple):
    """A flow: the overrides of its training, the method that teaches it, the sampler of its latents, its solvers."""

    overrides: tuple[str, ...] = ()
    teacher: str | None = None
    objective: str = "flow_map"  # with a teacher
    sampler: str | None = "sampler"  # None: no latents
    solvers: tuple[str, ...] = SOLVED
    run: str | None = None  # the method whose flow this is; None: its own
    distilled: tuple[str, ...] = ()  # overrides of its distillation, after those of --distil


def methods_of(options: argparse.Namespace) -> dict[str, Method]:
    """The chosen methods by name; those that come early in this table are trained first.

    SystemExit for an unknown name, and for a method without the one whose flow it needs.
    """
    wide = (f"stage.prior_scale={options.wide_scale}", f"stage.prior_widening={options.wide}")
    table = {
        "fm": Method(GAUSSIAN, sampler=None),
        "wide": Method(wide),
        "auto": Method(),
        "wide_map": Method(wide, teacher="wide", solvers=JUMPS),
        "paper": Method(("stage.prior_scale=1", "stage.prior_widening=0")),
        "fm_map": Method(GAUSSIAN, teacher="fm", sampler=None, solvers=JUMPS),
        "ot": Method((*GAUSSIAN, "stage.coupling=optimal_transport"), sampler=None),
        "long_map": Method(wide, teacher="wide", solvers=JUMPS, distilled=(*options.longer,)),
        "wide_mean": Method(wide, teacher="wide", objective="meanflow", solvers=JUMPS),
        "both_maps": Method(sampler="sampler_map", solvers=JUMPS, run="wide_map"),
        "fm_reflow": Method(GAUSSIAN, teacher="fm", objective="reflow", sampler=None, solvers=STRAIGHT),
    }
    if unknown := {*options.methods} - {*table}:
        raise SystemExit(f"--methods {' '.join(sorted(unknown))}: not known; choose of {', '.join(table)}")
    chosen = {name: method for name, method in table.items() if name in options.methods}
    if unknown := {*options.unmeasured} - {*chosen}:
        raise SystemExit(f"--unmeasured {' '.join(sorted(unknown))}: not among --methods {' '.join(chosen)}")
    for name, method in chosen.items():
        for needed in (method.teacher, method.run):
            if needed and needed not in chosen:
                raise SystemExit(f"--methods: {name} needs the flow of {needed}; add {needed}")
    return chosen


def of_seed(options: argparse.Namespace, seed: int) -> argparse.Namespace:
    """The options of everything that is trained with this seed; the first seed's runs are in the folder itself."""
    folder = options.folder if seed == options.seeds[0] else options.folder / f"seed{seed}"
    return argparse.Namespace(**{**vars(options), "seed": seed, "folder": folder})


def plan(options: argparse.Namespace) -> Jobs:
    """Every command of every seed, by its name; measurements first, so that finished flows are measured at once."""
    jobs = []
    for seed in options.seeds:
        own = of_seed(options, seed)
        jobs += [*measurements(own), *trainings(own)]
        if own.folder != options.folder:
            own.folder.mkdir(parents=True, exist_ok=True)
    return by_name(jobs)


def named(options: argparse.Namespace, name: str) -> str:
    """The name of a command: the part's, with the seed where there are several."""
    return name if len(options.seeds) == 1 else f"{name}_{options.seed}"


def job(options: argparse.Namespace, name: str, arguments: list[str], *needs: str) -> Job:
    return Job(named(options, name), arguments, tuple(named(options, each) for each in needs))


def trainings(options: argparse.Namespace) -> list[Job]:
    """The auxiliary model, the latent sampler and its map where a method needs them, and every flow."""
    folder, methods = options.folder, methods_of(options)
    parent = f"parent={folder}/auxiliary"
    samplers = {method.sampler for method in methods.values()} - {None}
    jobs = []
    if samplers:
        start = training(options, "stage=auxiliary", f"run={folder}/auxiliary")
        jobs.append(job(options, "auxiliary", start))
    for name, method in methods.items():
        if method.run is not None:
            continue
        words, needs = ["stage=flow", *method.overrides], list[str]()
        if method.sampler:
            words.append(parent)
            needs.append("auxiliary")
        if method.teacher:
            words += [
                f"stage.objective={method.objective}",
                f"teacher={folder}/{method.teacher}",
                *options.distil,
                *method.distilled,
            ]
            needs.append(method.teacher)
        if method.sampler and method.teacher and method.objective == "flow_map":
            # half of the teacher's paths start from latents of the sampler
            words.append(f"sampler={folder}/sampler")
            needs.append("sampler")
        jobs.append(job(options, name, training(options, *words, f"run={folder}/{name}"), *needs))
    if samplers:
        words = ["stage=latent_sampler", parent, f"run={folder}/sampler"]
        jobs.insert(2, job(options, "sampler", training(options, *words), "auxiliary"))
    if "sampler_map" in samplers:
        words = ["stage=latent_sampler", parent, f"teacher={folder}/sampler", "stage.objective=flow_map"]
        words += [*options.distil, f"run={folder}/sampler_map"]
        jobs.append(job(options, "sampler_map", training(options, *words), "auxiliary", "sampler"))
    return jobs


def measurements(options: argparse.Namespace) -> list[Job]:
    """A command of measure.py for each method that is measured."""
    folder, jobs = options.folder, []
    for name, method in methods_of(options).items():
        if name in options.unmeasured:
            continue
        run = method.run or name
        pair = [f"run={folder}/{run}", *([f"sampler={folder}/{method.sampler}"] if method.sampler else [])]
        words = evaluation(options, *pair, f"output={folder}/quality_{name}")[2:]
        command = ["tools/campaign/measure.py", "--solvers", *method.solvers, "--", *words]
        needs = (run, *([method.sampler] if method.sampler else []))
        jobs.append(job(options, f"quality_{name}", command, *needs))
    return jobs


def collect(options: argparse.Namespace) -> dict[str, Any]:
    """What every seed gave: the rows of its methods, and the losses of its runs."""
    return {"seeds": {str(seed): of_one_seed(of_seed(options, seed)) for seed in options.seeds}}


def of_one_seed(options: argparse.Namespace) -> dict[str, Any]:
    folder, methods = options.folder, methods_of(options)
    finished = {name: folder / f"quality_{name}/results.json" for name in methods}
    measured = {name: read_results(path)["results"] for name, path in finished.items() if path.is_file()}
    runs = ["auxiliary", "sampler", "sampler_map", *methods]
    return {
        **facts_of(measured),
        "methods": {name: method_of(found) for name, found in measured.items()},
        "losses": {run: losses(folder / run) for run in runs if (folder / run).is_dir()},
    }


def facts_of(measured: dict[str, Any]) -> dict[str, Any]:
    """What all rows have in common; nothing before the first."""
    for found in measured.values():
        row = found["rows"][0]
        return {
            "mmd_name": row["mmd_name"],
            "images": row["sample_images"],
            "reference_images": row["reference_images"],
            "held_out_images": row["against_heldout"]["reference_images"],
            **({"codec_floor": found["codec_floor"]["mmd_unbiased"]} if "codec_floor" in found else {}),
        }
    return {}


def method_of(found: dict[str, Any]) -> dict[str, Any]:
    """The start of a flow and its rows.

    `held_out` and `held_out_interval` are the MMD to held-out photographs, `decoded` and `decoded_interval` that to a
    codec's reconstructions of all photographs.
    """
    rows = []
    for row in found["rows"]:
        other, copies = row["against_heldout"], row.get("nearest_training", {})
        rows.append(
            {key: row[key] for key in OF_A_ROW if key in row}
            | {"held_out": other["mmd_unbiased"], "held_out_interval": other["mmd_interval"]}
            | decoded(row.get("against_reconstructions"))
            | {key: copies[key] for key in OF_COPIES if key in copies}
        )
    return {"k": found["prior_scale"], "s": found["prior_widening"], "rows": rows}


def decoded(found: dict[str, Any] | None) -> dict[str, Any]:
    return {"decoded": found["mmd_unbiased"], "decoded_interval": found["mmd_interval"]} if found else {}


def main() -> None:
    parser = parser_of(__doc__, "campaign64")
    every = ["fm", "ot", "paper", "auto", "wide", "wide_map", "fm_map"]
    parser.add_argument("--methods", nargs="+", default=every, metavar="METHOD")
    parser.add_argument(
        "--unmeasured", nargs="*", default=[], metavar="METHOD", help="of --methods: train only"
    )
    parser.add_argument("--wide", default="0.55", metavar="S", help="s of `wide`")
    parser.add_argument("--wide-scale", default="3", metavar="K", help="multiple of sigma of `wide`")
    parser.add_argument("--distil", nargs="*", default=[], metavar="KEY=VALUE", help="of every distillation")
    parser.add_argument(
        "--longer", nargs="*", default=[], metavar="KEY=VALUE", help="of long_map, in addition to --distil"
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], help="instead of --seed")
    parser.set_defaults(count=4096)
    parser.set_defaults(seed=None)
    options = parser.parse_args()
    if options.seed is not None:
        parser.error(f"--seed {options.seed}: give --seeds {options.seed}")
    options.seed, options.folder = options.seeds[0], Path(options.folder)
    carry_out(options, "comparison", plan(options), lambda: collect(options))


if __name__ == "__main__":
    main()
