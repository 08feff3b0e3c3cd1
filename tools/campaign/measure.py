"""Measures one flow with several solvers, in one process, against all photographs and against the held-out ones.

    python tools/campaign/measure.py --solvers euler:1 midpoint:1 heun3:2 -- run=RUN sampler=RUN data.path=SHARDS \
        output=FOLDER count=4096

A solver is NAME:STEPS. The rest are options of lediflow.evaluate, which would load the models and generate the images
once for each solver and split; its step_counts, solver and steps are not used, other modes and data.split are refused.
Finished rows are not measured again. Files in the output folder, rewritten or added after each row:

results.json          rows of lediflow.evaluate, without the Fréchet distance and KID, which take most of its time;
                      `against_heldout` has the metrics against the held-out photographs. For a run on latents with
                      data.photographs=IMAGE_SHARDS, `against_reconstructions` has those against the codec's
                      reconstructions, and `codec_floor` those of the reconstructions against the photographs
pictures/NAME-N.png   the first images of each setting (N steps), not selected, side by side
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig
from PIL import Image

from lediflow.config.composition.checks import typed
from lediflow.config.composition.command_line import run_command
from lediflow.config.submission import register_launchers
from lediflow.disk import whole_or_absent
from lediflow.errors import UserError
from lediflow.evaluate import MODELS
from lediflow.evaluation.config import EvaluateConfig
from lediflow.evaluation.metrics import FRECHET, KID, METRICS
from lediflow.evaluation.modes import check_request
from lediflow.evaluation.modes.rows import RowMaker, Run
from lediflow.evaluation.references import Reference, chosen_numbers, references
from lediflow.evaluation.session import Session
from lediflow.flow.solvers import check_solver
from lediflow.sampling import LeDiFlowPipeline, SamplingConfig
from lediflow.sampling.pictures import picture_arrays

SHOWN = 16  # images of each setting in its picture
HELD_OUT = "heldout"


def setting(text: str) -> tuple[str, int]:
    """A solver and its steps, from an option such as midpoint:4."""
    solver, _, steps = text.partition(":")
    if not steps.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r}: give a solver and its steps, such as midpoint:4")
    try:
        check_solver(solver, int(steps))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return solver, int(steps)


def measure_settings(config: DictConfig, settings: list[tuple[str, int]]) -> None:
    """Measure every setting and rewrite the results after each."""
    for metric in (FRECHET, KID):
        METRICS.pop(metric.key, None)  # rows record which metrics they have
    command = typed(config)
    check(command)
    session = Session.start(command, Path(command.paths.runs), MODELS)
    run = Run(Path(command.run).name, command.run, command.sampler)
    pipeline, output = session.pipeline(run.flow, run.sampler), Path(command.output)
    session.claim(output)
    base = SamplingConfig(**{field.name: getattr(command, field.name) for field in fields(SamplingConfig)})
    configs = [pipeline.resolved(replace(base, solver=solver, steps=steps)) for solver, steps in settings]
    everything, *decoded = references(session, pipeline, run.facts)
    maker = RowMaker.build(session, run, pipeline, [everything, held_out_part(everything), *decoded], output)
    common = {"prior_scale": pipeline.width.scale, "prior_widening": pipeline.width.added}
    if decoded:
        facts = RowMaker.build(session, run, pipeline, [everything, *decoded], output).facts()
        common["codec_floor"] = facts["codec_floor"]
    rows: list[dict[str, Any]] = []
    for chosen in configs:
        rows.append(maker.row(chosen))
        session.write(output, {"rows": rows, **common}, command.seed)
        session.say(f"{chosen.solver}, {chosen.steps} steps: MMD {rows[-1]['mmd_unbiased']:.3f}")
        write_picture(pipeline, chosen, output / "pictures" / f"{chosen.solver}-{chosen.steps}.png")


def check(command: EvaluateConfig) -> None:
    """UserError for a request that is not one run, measured into a folder, against all photographs."""
    check_request(command)
    if command.run is None or command.output is None:
        raise UserError("one run is measured into a folder; give run=RUN output=FOLDER")
    if command.mode != "metrics" or command.data.split != "all":
        raise UserError(
            f"mode={command.mode} data.split={command.data.split}: rows are measured against all photographs and "
            "against the held-out ones; leave mode and data.split out"
        )


def held_out_part(reference: Reference) -> Reference:
    """The photographs that training held out."""
    numbers = chosen_numbers(HELD_OUT, reference.is_held_out, reference.features.count)
    return replace(reference, name=HELD_OUT, chosen=numbers)


def write_picture(pipeline: LeDiFlowPipeline, config: SamplingConfig, path: Path) -> None:
    """Write the first images side by side."""
    arrays = picture_arrays(pipeline(SHOWN, config).images.cpu())
    path.parent.mkdir(exist_ok=True)
    with whole_or_absent(path) as stream:
        Image.fromarray(np.concatenate([*arrays], axis=1).squeeze()).save(stream, "PNG")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--solvers", nargs="+", type=setting, required=True, metavar="NAME:STEPS")
    parser.add_argument("options", nargs="*", metavar="KEY=VALUE", help="of lediflow.evaluate")
    chosen = parser.parse_args()
    sys.argv[1:] = chosen.options
    run_command("evaluate", partial(measure_settings, settings=chosen.solvers), register_launchers)


if __name__ == "__main__":
    main()
