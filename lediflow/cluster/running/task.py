"""`python -m lediflow.cluster.running.task JOBFOLDER`: the process of one rank.

Runs the job's command in this process and records how it exited. Rank 0 writes to the job's log, every other rank to a
log of its own.
"""

from __future__ import annotations

import os
import runpy
import socket
import sys
import tempfile
import time
import traceback
from pathlib import Path

from lediflow.cluster.jobs import JobFolder
from lediflow.cluster.running.attempt import Attempt, RankExit, find_attempt, write_exit

CRASHED = 1


def main(arguments: list[str]) -> None:
    """Run one rank of the job whose folder is given; ends the process with the command's exit status."""
    folder, rank = JobFolder(Path(arguments[0])), int(os.environ.get("SLURM_PROCID", "0"))
    attempt = find_attempt()
    keep_caches_on_node()
    if rank:
        redirect_output(rank_log(folder, attempt, rank))
    module, *options = folder.read().command
    exit_ = run(module, options, rank)
    try:
        write_exit(folder.rank_exits(attempt.label), exit_)
    except OSError as error:  # a full disk: the exit status still says the most important part
        print(f"rank {rank} cannot record how it exited: {error}\n{exit_.error or ''}", file=sys.stderr)
    leave(exit_)


def keep_caches_on_node() -> None:
    """Keep compiled kernels on the node's own disk, unless the variables are set.

    On a shared disk many ranks would wait for each other's file locks.
    """
    scratch = Path(tempfile.gettempdir()) / f"lediflow-{os.getuid()}"
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(scratch / "inductor"))
    os.environ.setdefault("TRITON_CACHE_DIR", str(scratch / "triton"))


def run(module: str, options: list[str], rank: int) -> RankExit:
    """Run the command as `python -m` would; returns how it exited."""
    status, error, trace = 0, None, None
    sys.argv = [module, *options]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as exit_:
        status, error = status_of(exit_)
    except BaseException as problem:
        status, error, trace = CRASHED, one_line(problem), traceback.format_exc()
    host = os.environ.get("SLURMD_NODENAME") or socket.gethostname()
    return RankExit(rank=rank, host=host, status=status, error=error, traceback=trace, time=time.time())


def status_of(exit_: SystemExit) -> tuple[int, str | None]:
    """The exit status, and the error that led to it if there was one."""
    code = exit_.code
    if isinstance(code, str):
        return CRASHED, code
    cause = exit_.__context__
    return int(code or 0), one_line(cause) if cause is not None and code else None


def one_line(problem: BaseException) -> str:
    """Type and message in one line; of a UserError the message alone."""
    name = "" if type(problem).__name__ == "UserError" else f"{type(problem).__name__}: "
    return (name + str(problem)).strip().replace("\n", " ")


def leave(exit_: RankExit) -> None:
    """End the process; after a crash at once, since threads that still wait would keep it alive."""
    sys.stdout.flush()
    sys.stderr.flush()
    if exit_.traceback:
        os._exit(exit_.status)
    sys.exit(exit_.status)


def rank_log(folder: JobFolder, attempt: Attempt, rank: int) -> Path:
    """Log of a rank other than 0 in one attempt."""
    return folder.log / f"{attempt.label}-rank{rank}.log"


def redirect_output(path: Path) -> None:
    """Append stdout and stderr of this process and its children to a file from now on."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(file)


if __name__ == "__main__":
    main(sys.argv[1:])
