"""`python -m lediflow.submit experiment=NAME ... [slurm=PRESET slurm.partition=...]`: queue jobs on SLURM and return.

Options are those of `lediflow.train` (or of `command=prepare|encode|sample|evaluate`); `slurm=` and `slurm.KEY=` say
what to ask SLURM for. A list of values (`seed=0,1,2`) is a job for each. `--dry-run` prints the scripts and submits
nothing. The jobs put themselves back into the queue until the work is done; the terminal may close.

`pipeline=NAME` (a file of conf/pipeline) submits a chain of jobs, from photographs to numbers; the same command again
submits what is neither done nor queued. TASK.KEY=VALUE is for one task, TASK.slurm.KEY=VALUE for its request.

Examples: python -m lediflow.submit experiment=ffhq256_sdv_flow data.path=SHARDS slurm.account=ME seed=0,1
          python -m lediflow.submit pipeline=ffhq256_sdv source=PHOTOGRAPHS slurm.account=ME seed=0,1,2
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from lediflow.cluster import slurm
from lediflow.cluster.jobs import JobRecord, job_folder
from lediflow.cluster.submitting.pipeline import plan
from lediflow.cluster.submitting.pipeline_queue import carry_out, foreseen, known_past, requests, table
from lediflow.cluster.submitting.script import render
from lediflow.cluster.submitting.snapshot import take_snapshot
from lediflow.cluster.submitting.submission import submit
from lediflow.config.cli import BAD_REQUEST, explain, unflagged
from lediflow.config.pipeline_jobs import pipeline_jobs
from lediflow.config.requests import Request, check_ranks, job_record, slurm_options, swept, take_apart
from lediflow.config.schema import SubmitCommand
from lediflow.errors import UserError

DRY_RUN = "dry_run=true"


def main() -> None:
    arguments = unflagged(sys.argv[1:], ["dry_run"])
    if not arguments or {"-h", "--help"} & {*arguments}:
        print(__doc__.replace("`", ""))
        return
    is_dry = DRY_RUN in arguments
    request = None
    try:
        request = take_apart([argument for argument in arguments if argument != DRY_RUN])
        (answer_pipeline if request.pipeline else answer)(request, is_dry)
    except UserError as error:
        refuse(str(error))
    except (HydraException, OmegaConfBaseException) as error:
        refuse(explain(error, request.command if request else "train"))


def refuse(message: str) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(BAD_REQUEST)


def answer(request: Request, is_dry: bool) -> None:
    """Every job is checked before the first is submitted."""
    options = slurm_options(request.slurm)
    runs = Path(options.paths.runs)
    jobs = []
    for overrides, sweep in swept(request.overrides):
        check_ranks(request, overrides, options.slurm)
        jobs.append(job_record(request, overrides, sweep, runs))
    if is_dry:
        for job in jobs:
            print(render(job_folder(job.name, runs), job, options.slurm))
        return
    submit_all(jobs, options, runs)


def submit_all(jobs: Sequence[JobRecord], options: SubmitCommand, runs: Path) -> None:
    snapshot = str(take_snapshot(runs))
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


def answer_pipeline(request: Request, is_dry: bool) -> None:
    """Every job is checked before the first is submitted; what is done or queued is left alone."""
    runs = Path(slurm_options(request.slurm).paths.runs)
    queue = queue_now(is_dry)  # before the folders are looked at: what ends meanwhile is not taken for lost
    jobs = pipeline_jobs(request)
    steps = plan(jobs, known_past(jobs, runs, queue))
    for line in table(steps, foreseen(steps) if is_dry else carry_out(steps, runs)):
        print(line, flush=True)
    print("\n".join(requests(steps)) if is_dry else "all jobs and runs: python -m lediflow.status")


def queue_now(is_dry: bool) -> list[slurm.Queued]:
    """A dry run needs no SLURM."""
    try:
        return slurm.queue()
    except slurm.SlurmError as error:
        if not is_dry:
            raise
        print(f"what is queued is not known here: {error}", file=sys.stderr)
        return []


if __name__ == "__main__":
    main()
