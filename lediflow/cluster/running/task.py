"""`python -m lediflow.cluster.running.task JOBFOLDER`: one rank.

Runs the job's command in this process and notes how it ended. The first rank speaks in the job's log, the others in
files of their own, where they say something.
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

from lediflow.cluster.incarnation import Incarnation, find_incarnation
from lediflow.cluster.jobs import JobFolder
from lediflow.cluster.running.ends import End, write_end

CRASHED = 1


def main(arguments: list[str]) -> None:
    folder, rank = JobFolder(Path(arguments[0])), int(os.environ.get("SLURM_PROCID", "0"))
    incarnation = find_incarnation()
    keep_caches_on_the_node()
    if rank:
        speak_into(rank_log(folder, incarnation, rank))
    module, *options = folder.read().command
    end = run(module, options, rank)
    try:
        write_end(folder.ends(incarnation.label), end)
    except OSError as error:  # a full disk: the exit status says the most of it
        print(f"rank {rank} cannot tell how it ended: {error}\n{end.error or ''}", file=sys.stderr)
    leave(end)


def keep_caches_on_the_node() -> None:
    """Compiled kernels: many ranks that lock files on a shared disk wait for each other. What is set wins."""
    scratch = Path(tempfile.gettempdir()) / f"lediflow-{os.getuid()}"
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(scratch / "inductor"))
    os.environ.setdefault("TRITON_CACHE_DIR", str(scratch / "triton"))


def run(module: str, options: list[str], rank: int) -> End:
    """The command as `python -m` would run it; how it ended."""
    status, error, trace = 0, None, None
    sys.argv = [module, *options]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as exit_:
        status, error = status_of(exit_)
    except BaseException as problem:
        status, error, trace = CRASHED, one_line(problem), traceback.format_exc()
    host = os.environ.get("SLURMD_NODENAME") or socket.gethostname()
    return End(rank=rank, host=host, status=status, error=error, traceback=trace, time=time.time())


def status_of(exit_: SystemExit) -> tuple[int, str | None]:
    """The exit status, and the error behind it if there was one."""
    code = exit_.code
    if isinstance(code, str):
        return CRASHED, code
    cause = exit_.__context__
    return int(code or 0), one_line(cause) if cause is not None and code else None


def one_line(problem: BaseException) -> str:
    name = "" if type(problem).__name__ == "UserError" else f"{type(problem).__name__}: "
    return (name + str(problem)).strip().replace("\n", " ")


def leave(end: End) -> None:
    """A rank that crashed goes at once: what others still wait for in it would keep it."""
    sys.stdout.flush()
    sys.stderr.flush()
    if end.traceback:
        os._exit(end.status)
    sys.exit(end.status)


def rank_log(folder: JobFolder, incarnation: Incarnation, rank: int) -> Path:
    return folder.log / f"{incarnation.label}-rank{rank}.log"


def speak_into(path: Path) -> None:
    """stdout and stderr of this process and its children, from now on."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(file)


if __name__ == "__main__":
    main(sys.argv[1:])
