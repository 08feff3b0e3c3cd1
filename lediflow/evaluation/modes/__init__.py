"""The modes of `python -m lediflow.evaluate`.

metrics   one run, or a folder of pictures, against photographs, at several numbers of solver steps
grid      one or several runs over solver x steps x temperature: table, Pareto plot, pictures at fixed noise
prior     likelihood and calibration of the learned prior
stages    which stage limits the quality: the prior, the latent sampler, the flow or the codec
compare   finished results of two runs, paired by seed: better, worse or undecided

Any number of ranks (torchrun, srun) shares the work of the first four; the numbers do not depend on how many.
"""

from __future__ import annotations

from pathlib import Path

from lediflow.errors import UserError
from lediflow.evaluation.config import EvaluateConfig
from lediflow.evaluation.mmd import FEWEST
from lediflow.evaluation.modes.compare import compare_results
from lediflow.evaluation.modes.grid import evaluate_grid
from lediflow.evaluation.modes.metrics import evaluate_folders, evaluate_run
from lediflow.evaluation.modes.prior import evaluate_prior
from lediflow.evaluation.modes.stages import evaluate_stages
from lediflow.evaluation.modes.watch import watch
from lediflow.evaluation.session import ModelLoader, Session

MODES = {"metrics": evaluate_run, "grid": evaluate_grid, "prior": evaluate_prior, "stages": evaluate_stages}


def evaluate(command: EvaluateConfig, runs: Path, models: ModelLoader) -> None:
    """Run one mode; `runs` is the default parent of run folders. UserError for options that contradict each other."""
    if command.mode == "compare":
        compare_results(command)
        return
    if command.mode not in MODES:
        raise UserError(f"mode={command.mode} is not known; choose one of {', '.join([*MODES, 'compare'])}")
    task = evaluate_folders if command.images is not None else MODES[command.mode]
    check_request(command)
    session = Session.start(command, runs, models)
    try:
        with session.group.blaming():
            watch(session) if command.watch else task(session)
    finally:
        session.group.close()


def check_request(command: EvaluateConfig) -> None:
    """Refuse requests without exactly one subject and something real to compare it with."""
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
    if command.runs is not None and command.mode != "grid":
        raise UserError(
            f"runs= is an option of mode=grid only, but mode={command.mode}; give run= and sampler="
        )
    if command.images is not None and command.reference is None:
        raise UserError("images=DIR is compared with a folder of real pictures; give reference=DIR as well")
    if command.images is None and not command.data.path:
        subject = command.watch or command.run or "a run"
        raise UserError(f"{subject} is compared with real images; give their shards: data.path=SHARDS")
    generates = command.images is None and command.mode != "prior"
    if generates and command.count < FEWEST:
        raise UserError(
            f"count={command.count}: a distance and its interval need at least {FEWEST} images; use 1,000 or more "
            "for a reliable estimate"
        )
