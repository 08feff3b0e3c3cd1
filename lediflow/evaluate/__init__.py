"""`python -m lediflow.evaluate`: generated images against real ones, and what they cost.

metrics   one run (or a folder of pictures) against photographs, for several numbers of solver steps
grid      one or several runs over solver x steps x temperature: table, Pareto plot, pictures at fixed noise
prior     how well the learned prior knows what it does not know
stages    which stage limits the quality: the prior, the latent sampler, the flow or the codec
compare   finished results of two runs, paired by seed: better, worse or undecided

Any number of ranks (torchrun, srun) shares the work of the first four; no number depends on how many they are.
"""

from __future__ import annotations

from omegaconf import DictConfig

from lediflow.config.build import typed
from lediflow.config.cli import run_command
from lediflow.config.schema import EvaluateCommand
from lediflow.errors import UserError
from lediflow.evaluate.comparing import compare_results
from lediflow.evaluate.folders import evaluate_folders
from lediflow.evaluate.grids import evaluate_grid
from lediflow.evaluate.priors import evaluate_prior
from lediflow.evaluate.runs import evaluate_run
from lediflow.evaluate.session import Session
from lediflow.evaluate.stages import evaluate_stages
from lediflow.evaluate.watching import watch
from lediflow.evaluation.distances.estimate import FEWEST

MODES = {"metrics": evaluate_run, "grid": evaluate_grid, "prior": evaluate_prior, "stages": evaluate_stages}


def main() -> None:
    run_command("evaluate", run, dashed=("watch",))


def run(config: DictConfig) -> None:
    command: EvaluateCommand = typed(config)
    if command.mode == "compare":
        compare_results(command)
        return
    if command.mode not in MODES:
        raise UserError(f"mode={command.mode} is not known; choose one of {', '.join([*MODES, 'compare'])}")
    task = evaluate_folders if command.images is not None else MODES[command.mode]
    check_request(command)
    session = Session.start(command)
    try:
        with session.group.blaming():
            watch(session) if command.watch else task(session)
    finally:
        session.group.close()


def check_request(command: EvaluateCommand) -> None:
    """One thing is evaluated, against something real."""
    subjects = [command.run is not None, command.images is not None, bool(command.runs)]
    if command.watch is None and sum(subjects) != 1:
        raise UserError(
            "give either run=FLOW_RUN (with sampler= and data.path=) or images=DIR with reference=DIR; several runs as "
            "mode=grid 'runs={NAME:[FLOW_RUN,SAMPLER_RUN],BASELINE:[FLOW_RUN]}'"
        )
    if command.baseline is not None and command.mode != "stages":
        raise UserError(
            f"baseline={command.baseline} is an option of mode=stages only, but mode={command.mode}; leave it "
            "out, or give the runs of mode=grid as 'runs={NAME:[FLOW_RUN,SAMPLER_RUN],BASELINE:[FLOW_RUN]}'"
        )
    if command.images is not None and command.reference is None:
        raise UserError("images=DIR is compared with a folder of real pictures; give reference=DIR as well")
    if command.images is None and not command.data.path:
        subject = command.watch or command.run or "a run"
        raise UserError(f"{subject} is compared with real images; give their shards: data.path=SHARDS")
    if command.count < FEWEST:
        raise UserError(
            f"count={command.count}: a distance and its interval need {FEWEST} images at least; 1000 say more"
        )
