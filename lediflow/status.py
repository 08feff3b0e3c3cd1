"""`python -m lediflow.status [RUNS]`: what jobs and runs are at; `logs`, `cancel` and `resume` by name.

    python -m lediflow.status                         one line for each job and run below runs/
    python -m lediflow.status logs NAME --follow      what it said, and says
    python -m lediflow.status cancel NAME --save      the state is saved first
    python -m lediflow.status resume NAME             submit it again, with the jobs that wait for it

NAME is a job's name, a run's folder, or SLURM's job id.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

from lediflow.cluster.slurm import SlurmError
from lediflow.cluster.watching import following
from lediflow.cluster.watching.cancelling import cancel, save_and_cancel
from lediflow.cluster.watching.finding import find
from lediflow.cluster.watching.overview import Overview
from lediflow.cluster.watching.resuming import await_leaving, resume
from lediflow.cluster.watching.row import Row
from lediflow.cluster.watching.table import as_json, table
from lediflow.disk import lasting_fault
from lediflow.errors import UserError

BAD_REQUEST = 2
INTERRUPTED = 130


def main() -> None:
    words = sys.argv[1:]
    action, parser = ACTIONS[words[0]] if words and words[0] in ACTIONS else (show_table, table_parser)
    arguments = parser().parse_args(words)
    try:
        action(arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(BAD_REQUEST)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        if (fault := lasting_fault(error)) is None:
            raise
        print(f"error: {fault}", file=sys.stderr)
        sys.exit(BAD_REQUEST)


def show_table(arguments: argparse.Namespace) -> None:
    overview = overview_of(arguments.runs)
    if arguments.json:
        print(json.dumps([as_json(row) for row in overview.rows], indent=2))
    elif overview.rows:
        print(table(overview.rows))
    else:
        print(
            f"no job and no run in {arguments.runs} yet; `python -m lediflow.submit` and `lediflow.train` make some"
        )


def show_log(arguments: argparse.Namespace) -> None:
    overview = overview_of(arguments.runs)
    row = find(overview.rows, arguments.name)
    if row.job is None or row.record is None or row.record.job_id is None:
        raise UserError(
            f"{row.name} was never in the queue, so nobody kept what it said; {row.run}/events.jsonl has what happened"
        )
    job = following.log_id(row, arguments.name, arguments.task)
    choose, out = following.log_chooser(row.job, job, arguments.rank), sys.stdout.buffer
    if arguments.follow:
        following.follow(choose, out, following.seldom(lambda: has_left(overview, row)))
    else:
        following.show(choose(), out, following.missing_log(row, job, arguments.rank))


def has_left(overview: Overview, row: Row) -> bool:
    """Whether the job is in the queue no more. A controller that does not answer has not said so."""
    try:
        return not overview.asked_again(row)
    except SlurmError:
        return False


def cancel_job(arguments: argparse.Namespace) -> None:
    overview = overview_of(arguments.runs)
    row = find(overview.rows, arguments.name)
    if arguments.save:
        print(
            f"{row.name} is asked to save and stop; Ctrl-C ends the waiting, not the request", file=sys.stderr
        )
    print((save_and_cancel if arguments.save else cancel)(overview, row))


def resume_job(arguments: argparse.Namespace) -> None:
    overview = overview_of(arguments.runs)
    row = find(overview.rows, arguments.name)
    overview = await_leaving(overview, row)
    for record in resume(overview, overview.row(row.name)):
        print(f"{record.name} is job {record.job_id}")


def overview_of(runs: Path) -> Overview:
    """What SLURM could not say is said once."""
    if not runs.is_dir():
        raise UserError(
            f"there is no folder {runs}; give the one that holds the runs (paths.runs of training)"
        )
    overview = Overview(runs)
    for note in overview.known.notes:
        print(f"note: {note}", file=sys.stderr)
    return overview


def table_parser() -> argparse.ArgumentParser:
    assert __doc__ is not None
    lead, _, rest = __doc__.replace("`", "").partition("\n\n")
    parser = argparse.ArgumentParser(
        prog="python -m lediflow.status",
        description=f"{lead}\n\n{rest}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("runs", nargs="?", type=Path, default=Path("runs"), metavar="RUNS",
                        help="the folder that holds the runs (default: runs)")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="for programs: a list of objects")
    return parser


def named_parser(action: str, description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m lediflow.status", description=description)
    parser.add_argument("action", choices=[action])
    parser.add_argument("name", metavar="NAME", help="a job's name, a run's folder, or SLURM's job id")
    parser.add_argument(
        "--runs", type=Path, default=Path("runs"), help="the folder that holds the runs (default: runs)"
    )
    return parser


def logs_parser() -> argparse.ArgumentParser:
    parser = named_parser("logs", "What a job said: its supervisor and its first rank, in all its starts.")
    parser.add_argument(
        "--rank", type=int, default=0, help="another rank, where it said something, in its last start"
    )
    parser.add_argument("--task", type=int, help="of an array")
    parser.add_argument("--follow", action="store_true", help="go on until the job has left the queue")
    return parser


def cancel_parser() -> argparse.ArgumentParser:
    parser = named_parser("cancel", "End a job.")
    parser.add_argument(
        "--save", action="store_true", help="let the run save its state first, and wait for it"
    )
    return parser


def resume_parser() -> argparse.ArgumentParser:
    return named_parser(
        "resume",
        "Submit a job again that has ended before its work was done, and the jobs that waited for it.",
    )


ACTIONS: dict[str, tuple[Callable[[argparse.Namespace], None], Callable[[], argparse.ArgumentParser]]] = {
    "logs": (show_log, logs_parser),
    "cancel": (cancel_job, cancel_parser),
    "resume": (resume_job, resume_parser),
}

if __name__ == "__main__":
    main()
