"""Experiment: regularisation of an auxiliary model on few pictures; one model per setting, evaluated on other pictures.

    python tools/campaign/memorising.py --data SHARDS --others OTHER_SHARDS --name faces600 --folder runs/memorising \
        --cures base= dropout=model.auxiliary.levels.0.dropout=0.1,model.auxiliary.levels.1.dropout=0.1 ...

A cure (a setting) is NAME=OVERRIDE,OVERRIDE,... Each model exports the averaged weights of its best validation
(train.export=best), which `evaluate mode=prior` measures on `--others`; the curve of held-out losses shows the last
weights. For the whole chain see small_sets.py. Results are written to results/campaign/memorising_NAME.json.
"""

from __future__ import annotations

import argparse
from typing import Any

from jobs import Job, Jobs, by_name, carry_out, evaluation, losses, named_overrides, parser_of, training

from lediflow.evaluation.results import read_results

OF_THE_PRIOR = (
    "images",
    "nll_nats",
    "kl_nats_per_image",
    "active_units",
    "sigma_geometric_mean",
    "share_at_floor",
    "psnr",
)


def plan(options: argparse.Namespace) -> Jobs:
    """Every command, by its name."""
    folder, jobs = options.folder, []
    for name, overrides in named_overrides(options.cures).items():
        run = f"{folder}/{name}"
        train = training(options, "stage=auxiliary", "train.export=best", *overrides, f"run={run}")
        prior = ["mode=prior", f"data.path={options.others}", f"run={run}", f"output={run}_prior"]
        jobs.append(Job(name, train))
        jobs.append(Job(f"{name}_prior", evaluation(options, *prior), (name,)))
    return by_name(jobs)


def collect(options: argparse.Namespace) -> dict[str, Any]:
    """The prior of every model that has been measured, and its losses."""
    found: dict[str, Any] = {}
    for name in named_overrides(options.cures):
        found[name] = {"losses": losses(options.folder / name, "averaged_loss")}
        results = options.folder / f"{name}_prior" / "results.json"
        if results.is_file():
            prior = read_results(results)["results"]["prior"]
            found[name]["best_on_others"] = {key: prior[key] for key in OF_THE_PRIOR if key in prior}
    return {"cures": found}


def main() -> None:
    parser = parser_of(__doc__, "demo")
    parser.add_argument(
        "--others", required=True, help="prepared shards of pictures that are not used in training"
    )
    parser.add_argument("--cures", nargs="+", default=["base="], metavar="NAME=OVERRIDE,...")
    options = parser.parse_args()
    carry_out(options, "memorising", plan(options), lambda: collect(options))


if __name__ == "__main__":
    main()
