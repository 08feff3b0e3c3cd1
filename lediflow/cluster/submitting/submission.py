"""Submission of jobs, by sbatch or through submitit: the job's folder, a copy of the code, the sbatch script.

The script contains everything it needs: `sbatch job.sh` submits the job again. The copy of the code is made when a job
is submitted, so that edits in the checkout do not change queued jobs; copies are named by a hash of their content, so
that jobs with the same code share one.

submitit queues the same supervised jobs as one array whose tasks are the jobs. It pickles nothing but a path, so that a
pickle stays valid however long a job waits and however often it is requeued. The batch step is the supervisor; it
starts the ranks by srun itself, not through submitit.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import math
import os
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lediflow
from lediflow.cluster import slurm
from lediflow.cluster.jobs import CODE, JOBS, JobFolder, JobRecord, SlurmConfig, now
from lediflow.cluster.running import supervise
from lediflow.cluster.running.attempt import find_attempt
from lediflow.cluster.running.task import redirect_output
from lediflow.cluster.slurm import SlurmError, message_of, option_to_change
from lediflow.errors import UserError
from lediflow.text import shown_hash

LARGEST_SHARE = 0.1  # of the time limit: the warning comes no earlier than this before the end
CODE_FOLDERS = ("lediflow", "conf")  # the package, and in a checkout the YAML files next to it


# --- submitting


def submit(folder: JobFolder, record: JobRecord, config: SlurmConfig, after: Sequence[str] = ()) -> JobRecord:
    """Queue a job that starts once the jobs with the ids `after` have succeeded; the record with the new id.

    UserError if the job is queued already; SlurmError with SLURM's own message if SLURM refuses it.
    """
    refuse_if_queued(folder, record.name)
    record = dataclasses.replace(record, slurm=dataclasses.asdict(config))
    folder.write(record)
    return submit_again(folder, record, config, after)


def submit_again(
    folder: JobFolder, record: JobRecord, config: SlurmConfig, after: Sequence[str] = ()
) -> JobRecord:
    """Queue a job whose folder exists; the record with the new id."""
    script = write_script(folder, record, config)
    waiting = [f"--dependency=afterok:{':'.join(after)}", "--kill-on-invalid-dep=yes"] if after else []
    job = slurm.sbatch(str(script), *waiting)
    record = dataclasses.replace(record, job_ids=[*record.job_ids, job], submitted=now())
    folder.write(record)
    return record


def refuse_if_queued(folder: JobFolder, name: str) -> None:
    """UserError if the job, or another one of its name, is in the queue: two would write into the same folder."""
    ids = set(folder.read().job_ids) if folder.record_file.is_file() else set()
    for entry in slurm.queue():
        if {entry.job, entry.job.partition("_")[0]} & ids or entry.name == name:
            raise UserError(
                f"{name} is in the queue already, as job {entry.job} ({entry.state.lower()}); "
                f"look at it with `python -m lediflow.status`, end it with `python -m lediflow.status cancel {name}`"
            )


# --- the script


def write_script(folder: JobFolder, record: JobRecord, config: SlurmConfig) -> Path:
    """Write job.sh and make the folder of its logs."""
    folder.log.mkdir(parents=True, exist_ok=True)
    folder.script.write_text(render(folder, record, config))
    folder.script.chmod(0o755)
    return folder.script


def render(folder: JobFolder, record: JobRecord, config: SlurmConfig, python: str = sys.executable) -> str:
    """Text of the script: sbatch options, shell lines, then the supervisor, which replaces the shell."""
    options = [option(name, value) for name, value in sbatch_options(folder, record, config).items()]
    lines = [
        "#!/bin/bash",
        *[f"#SBATCH {line}" for line in options],
        *shell_lines(record.snapshot, config),
        f"exec {shlex.join([python, '-u', '-m', 'lediflow.cluster.running.supervise', str(folder.root)])}",
    ]
    return "\n".join(lines) + "\n"


def shell_lines(snapshot: str, config: SlurmConfig) -> list[str]:
    """Shell lines before Python starts: the path of the code, environment variables, slurm.setup."""
    return [
        f"export PYTHONPATH={shlex.quote(snapshot)}${{PYTHONPATH:+:$PYTHONPATH}}",
        *[f"export {name}={shlex.quote(str(value))}" for name, value in environment(config).items()],
        *config.setup,
    ]


def option(name: str, value: Any) -> str:
    """--name, or --name=value, quoted as sbatch reads it in a script."""
    return f"--{name}" if value is True else f"--{name}={shlex.quote(str(value))}"


def sbatch_options(folder: JobFolder, record: JobRecord, config: SlurmConfig) -> dict[str, Any]:
    """Options by name, without those that are left to the cluster."""
    chosen = {name: getattr(config, name) for name in ("partition", "account", "qos", "constraint")}
    chosen |= {name: getattr(config, name) for name in ("reservation", "exclude", "nodes")}
    chosen |= {
        "job-name": record.name,
        "chdir": record.folder,
        # % begins a pattern of SLURM; %% is a literal %
        "output": str(folder.log).replace("%", "%%") + ("/%A_%a.log" if record.array else "/%j.log"),
        "open-mode": "append",  # all attempts of a job share the file
        "ntasks-per-node": config.tasks_per_node,
        "cpus-per-task": config.cpus_per_task,
        "gres": f"gpu:{config.gpus_per_node}" if config.gpus_per_node else "",
        "mem": f"{math.ceil(1024 * config.mem_gb)}M" if config.mem_gb else "",
        "time": config.timeout_min,
        "signal": f"USR2@{warning_seconds(config)}",
        "requeue" if config.requeue else "no-requeue": True,
        "array": array_range(record.array, config.array_parallelism),
    }
    return {name: value for name, value in chosen.items() if value} | config.additional_parameters


def warning_seconds(config: SlurmConfig) -> int:
    """Seconds from the warning signal to the time limit; at most a tenth of the limit, for the sake of short jobs."""
    limit = 60 * config.timeout_min * LARGEST_SHARE if config.timeout_min else math.inf
    return int(max(1, min(config.signal_delay_s, limit)))


def array_range(tasks: int | None, at_once: int) -> str:
    """Value of sbatch's --array: 0-7, or 0-7%3 for three tasks at the same time; empty without an array."""
    if not tasks:
        return ""
    return f"0-{tasks - 1}" + (f"%{at_once}" if at_once else "")


def environment(config: SlurmConfig) -> Mapping[str, str]:
    """Environment variables of every rank; slurm.environment takes precedence."""
    network = {
        name: config.interface for name in ("NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME") if config.interface
    }
    return {"OMP_NUM_THREADS": str(config.cpus_per_task), **network, **config.environment}


# --- the copy of the code


def copy_code(runs: Path, root: Path | None = None) -> Path:
    """Copy the code to RUNS/jobs/.code/HASH, unless it is there; returns that folder, to be put on PYTHONPATH.

    `root` is the folder that contains the package, by default that of the running one.
    """
    root = root or Path(lediflow.__file__).parent.parent
    files = {path.relative_to(root): path.read_bytes() for path in sorted(code_files(root))}
    target = runs.absolute() / JOBS / CODE / content_hash(files)
    if not target.is_dir():
        partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
        for path, content in files.items():
            (partial / path).parent.mkdir(parents=True, exist_ok=True)
            (partial / path).write_bytes(content)
        _move(partial, target)
    return target


def code_files(root: Path) -> Iterator[Path]:
    """Every file of the package and its configuration, without __pycache__."""
    for folder in CODE_FOLDERS:
        if (root / folder / "__init__.py").is_file() or (root / folder / "train.yaml").is_file():
            yield from (
                path
                for path in (root / folder).rglob("*")
                if path.is_file() and "__pycache__" not in path.parts
            )


def content_hash(files: dict[Path, bytes]) -> str:
    """First 12 hexadecimal digits of a SHA-256 over paths and contents."""
    digest = hashlib.sha256()
    for path, content in files.items():
        digest.update(f"{path}\0{len(content)}\0".encode() + content)
    return shown_hash(digest.hexdigest())


def _move(partial: Path, target: Path) -> None:
    try:
        partial.rename(target)
    except OSError:
        shutil.rmtree(partial)
        if not target.is_dir():  # else another process has just made the same copy
            raise


# --- through submitit


@dataclass(frozen=True)
class Supervised:
    """The callable that submitit runs on the first node."""

    folder: str

    def __call__(self) -> None:
        folder = JobFolder(Path(self.folder))
        folder.log.mkdir(parents=True, exist_ok=True)
        redirect_output(folder.log / f"{find_attempt().job}.log")
        supervise.main([self.folder])


def queue_by_submitit(
    folders: Sequence[JobFolder], records: Sequence[JobRecord], config: SlurmConfig
) -> list[str]:
    """Queue the jobs; their ids, in order. SlurmError with SLURM's own message if SLURM refuses them."""
    import submitit  # an optional dependency

    executor = submitit.AutoExecutor(folder=folders[0].root.parent / ".submitit" / "%A", cluster="slurm")
    executor.update_parameters(**parameters(records, config))
    try:
        # SLURM's message is part of the error; submitit would print it a second time
        with contextlib.redirect_stderr(io.StringIO()), executor.batch():
            jobs = [executor.submit(Supervised(str(folder.root))) for folder in folders]
    except submitit.core.utils.FailedJobError as error:
        message = message_of(str(error))
        raise SlurmError(f"sbatch: {message}{option_to_change(message, 'hydra.launcher.')}") from error
    return [job.job_id for job in jobs]


def parameters(records: Sequence[JobRecord], config: SlurmConfig) -> dict[str, Any]:
    """SlurmConfig by submitit's names, without the values that are left to the cluster."""
    more = {"requeue" if config.requeue else "no-requeue": True, "reservation": config.reservation}
    chosen: dict[str, Any] = {
        "name": records[0].name if len(records) == 1 else common_name(records),
        "nodes": config.nodes,
        "tasks_per_node": config.tasks_per_node,
        "gpus_per_node": config.gpus_per_node,
        "cpus_per_task": config.cpus_per_task,
        "mem_gb": config.mem_gb,
        "timeout_min": config.timeout_min,
        "slurm_signal_delay_s": warning_seconds(config),
        "slurm_array_parallelism": config.array_parallelism or len(records),
        "slurm_setup": shell_lines(records[0].snapshot, config),
        "slurm_use_srun": False,
        "slurm_additional_parameters": {k: v for k, v in more.items() if v} | config.additional_parameters,
    }
    chosen |= {
        f"slurm_{name}": getattr(config, name)
        for name in ("partition", "account", "qos", "constraint", "exclude")
    }
    return {name: value for name, value in chosen.items() if value or name == "slurm_use_srun"}


def common_name(records: Sequence[JobRecord]) -> str:
    """Name of a sweep: the experiment, with which the names of all run folders begin."""
    return records[0].name.partition(".")[0]
