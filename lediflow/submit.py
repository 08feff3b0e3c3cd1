"""`python -m lediflow.submit experiment=NAME ... [slurm=PRESET slurm.partition=...]`: queue jobs on SLURM and return.

Options are those of `lediflow.train` (or of `command=prepare|encode|sample|evaluate`); `slurm=` and `slurm.KEY=` choose
the resources. A list of values (`seed=0,1,2`) makes one job for each value. `--dry-run` prints the scripts and submits
nothing. Jobs requeue themselves until the work is done; the terminal may be closed.

`pipeline=NAME` (a file of conf/pipeline) submits a chain of jobs, from photographs to metrics; the same command again
submits what is neither done nor queued. TASK.KEY=VALUE sets an option of one task, TASK.slurm.KEY=VALUE its resources.

Examples: python -m lediflow.submit experiment=ffhq256_sdv_flow data.path=SHARDS slurm.account=ME seed=0,1
          python -m lediflow.submit pipeline=ffhq256_sdv source=PHOTOGRAPHS slurm.account=ME seed=0,1,2
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lediflow.arguments import CONFIGURATION
from lediflow.cluster import slurm
from lediflow.cluster.jobs import JobRecord, job_folder
from lediflow.cluster.submitting.pipeline import carry_out, dry_run, known_past, plan, plan_table, requests
from lediflow.cluster.submitting.submission import copy_code, render, submit
from lediflow.config.composition.command_line import unflagged
from lediflow.config.composition.compose import composed
from lediflow.config.composition.explanations import explain
from lediflow.config.composition.schema import SubmitCommand
from lediflow.config.submission.pipeline_jobs import pipeline_jobs
from lediflow.config.submission.requests import (
    Request,
    job_record,
    parse_request,
    slurm_options,
    swept,
)
from lediflow.errors import BAD_REQUEST, UserError

DRY_RUN = "dry_run=true"


def main() -> None:
    arguments = unflagged(sys.argv[1:], ["dry_run"])
    if not arguments or {"-h", "--help"} & {*arguments}:
        print(__doc__.replace("`", "").rstrip())
        sys.exit(0 if arguments else BAD_REQUEST)
    is_dry = DRY_RUN in arguments
    is_shown, arguments = without_configuration([word for word in arguments if word != DRY_RUN])
    request = None
    try:
        request = parse_request(arguments)
        if is_shown:
            print(configuration(request), end="")
            return
        (submit_pipeline if request.pipeline else submit_jobs)(request, is_dry)
    except UserError as error:
        refuse(str(error))
    except (HydraException, OmegaConfBaseException) as error:
        refuse(explain(error, request.command if request else "train"))


def without_configuration(arguments: list[str]) -> tuple[bool, list[str]]:
    """Whether `--cfg job` is among the arguments, and the others."""
    for place, word in enumerate(arguments):
        if word == f"{CONFIGURATION}=job":
            return True, [*arguments[:place], *arguments[place + 1 :]]
        if arguments[place : place + 2] == [CONFIGURATION, "job"]:
            return True, [*arguments[:place], *arguments[place + 2 :]]
    return False, arguments


def configuration(request: Request) -> str:
    """The options of the command, of the first of several values, and those of its job, as YAML."""
    if request.pipeline:
        raise UserError(
            f"{CONFIGURATION} job shows one command, and pipeline={request.pipeline} has several; --dry-run shows them"
        )
    overrides, _ = next(swept(request.overrides))
    job = OmegaConf.create({"slurm": composed("submit", request.slurm).slurm})
    options = OmegaConf.to_yaml(composed(request.command, overrides))
    return f"# python -m lediflow.{request.command}\n{options}{OmegaConf.to_yaml(job)}"


def refuse(message: str) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(BAD_REQUEST)


def submit_jobs(request: Request, is_dry: bool) -> None:
    """Submit one job for each combination of values; all are checked before the first is submitted."""
    options = slurm_options(request.slurm)
    runs = Path(options.paths.runs)
    jobs = []
    for overrides, sweep in swept(request.overrides):
        jobs.append(job_record(request, overrides, sweep, runs, options.slurm))
    if is_dry:
        for job in jobs:
            print(render(job_folder(job.name, runs), job, options.slurm))
        return
    submit_all(jobs, options, runs)


def submit_all(jobs: Sequence[JobRecord], options: SubmitCommand, runs: Path) -> None:
    """Submit the jobs with one copy of the code, and print how to follow them."""
    snapshot = str(copy_code(runs))
    for job in jobs:
        job.snapshot = snapshot
        folder = job_folder(job.name, runs)
        record = submit(folder, job, options.slurm)
        print(
            f"{record.name} is job {record.job_id}\n"
            f"  folder  {record.run}\n"
            f"  log     {folder.log / f'{record.job_id}.log'}\n"
            f"  follow  python -m lediflow.status logs {shlex.quote(record.name)} --follow"
        )
    print("all jobs and runs: python -m lediflow.status")


def submit_pipeline(request: Request, is_dry: bool) -> None:
    """Submit the jobs of a pipeline that are neither done nor queued; all are checked before the first is submitted."""
    runs = Path(slurm_options(request.slurm).paths.runs)
    # read before the folders, so that a job that ends in between is not reported as lost
    queue = queue_now(is_dry)
    jobs = pipeline_jobs(request)
    steps = plan(jobs, known_past(jobs, runs, queue))
    for line in plan_table(steps, dry_run(steps) if is_dry else carry_out(steps, runs)):
        print(line, flush=True)
    print("\n".join(requests(steps)) if is_dry else "all jobs and runs: python -m lediflow.status")


def queue_now(is_dry: bool) -> list[slurm.Queued]:
    """The queue; empty for a dry run on a machine without SLURM."""
    try:
        return slurm.queue()
    except slurm.SlurmError as error:
        if not is_dry:
            raise
        print(f"the queue is unknown here: {error}", file=sys.stderr)
        return []


if __name__ == "__main__":
    main()
