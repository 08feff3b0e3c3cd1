"""`python -m lediflow.status [RUNS]`: status of jobs and runs; `logs`, `cancel` and `resume` by name.

    python -m lediflow.status                         one line for each job and run below runs/
    python -m lediflow.status --watch                 the same, drawn again every few seconds until Ctrl-C
    python -m lediflow.status logs NAME --follow      print the log of a job, and follow it
    python -m lediflow.status cancel NAME --save      save the state of a run, then cancel its job
    python -m lediflow.status resume NAME             submit a job again, with its dependents

NAME is the name of a job, the folder of a run, or a SLURM job id.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

from lediflow.arguments import parse
from lediflow.cluster.slurm import SlurmError
from lediflow.cluster.watching import live, logs
from lediflow.cluster.watching.actions import await_leaving, cancel, lookup, resume, save_and_cancel
from lediflow.cluster.watching.overview import JobRow, Overview, as_json, overview_table
from lediflow.errors import UserError, exit_on_errors


def main() -> None:
    words = sys.argv[1:]
    action, parser = ACTIONS[words[0]] if words and words[0] in ACTIONS else (show_table, table_parser)
    arguments = parse(parser(), words)
    with exit_on_errors(interrupted=""):
        try:
            action(arguments)
        except BrokenPipeError:  # the reader has closed the pipe, as `| head` does
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def show_table(arguments: argparse.Namespace) -> None:
    if arguments.watch:
        overview_of(arguments.runs)  # refuses a folder that does not exist, before anything is drawn
        live.watch(lambda: Overview(arguments.runs), arguments.every)
    overview = overview_of(arguments.runs)
    if arguments.json:
        print(json.dumps([as_json(row) for row in overview.rows], indent=2))
    elif overview.rows:
        print(overview_table(overview.rows))
    else:
        print(
            f"no job and no run in {arguments.runs} yet; `python -m lediflow.submit` and `lediflow.train` create them"
        )


def show_log(arguments: argparse.Namespace) -> None:
    overview = overview_of(arguments.runs)
    row = lookup(overview.rows, arguments.name)
    if row.job is None or row.record is None or row.record.job_id is None:
        raise UserError(
            f"{row.name} was never in the queue, so its output was not kept; {row.run}/events.jsonl has its events"
        )
    job = logs.log_id(row, arguments.name, arguments.task)
    choose, out = logs.log_chooser(row.job, job, arguments.rank), sys.stdout.buffer
    if arguments.follow:
        logs.follow(choose, out, logs.at_most_every(lambda: has_left(overview, row)))
    else:
        logs.show(choose(), out, logs.missing_log(row, job, arguments.rank))


def has_left(overview: Overview, row: JobRow) -> bool:
    """Whether the job has left the queue; False if the controller does not answer."""
    try:
        return not overview.queued_now(row)
    except SlurmError:
        return False


def cancel_job(arguments: argparse.Namespace) -> None:
    overview = overview_of(arguments.runs)
    row = lookup(overview.rows, arguments.name)
    if arguments.save:
        print(
            f"{row.name} is requested to save and stop; Ctrl-C ends the waiting, not the request",
            file=sys.stderr,
        )
    print((save_and_cancel if arguments.save else cancel)(overview, row))


def resume_job(arguments: argparse.Namespace) -> None:
    overview = overview_of(arguments.runs)
    row = lookup(overview.rows, arguments.name)
    overview = await_leaving(overview, row)
    for record in resume(overview, overview.row(row.name)):
        print(f"{record.name} is job {record.job_id}")


def overview_of(runs: Path) -> Overview:
    """The overview of a folder of runs, after printing what SLURM could not answer. UserError without that folder."""
    if not runs.is_dir():
        raise UserError(
            f"there is no folder {runs}; give the one that contains the runs (paths.runs of training)"
        )
    overview = Overview(runs)
    for note in overview.notes:
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
                        help="folder that contains the runs (default: runs)")  # fmt: skip
    shown = parser.add_mutually_exclusive_group()
    shown.add_argument("--json", action="store_true", help="print a list of JSON objects, for programs")
    shown.add_argument("--watch", action="store_true", help="draw the table again and again, until Ctrl-C")
    parser.add_argument("--every", type=positive_seconds, default=5.0, metavar="SECONDS",
                        help="pause between two tables of --watch (default: 5)")  # fmt: skip
    return parser


def positive_seconds(text: str) -> float:
    """A number of seconds above zero; argparse shows the message of the error."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a number of seconds above 0")
    return seconds


def named_parser(action: str, description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"python -m lediflow.status {action}", description=description)
    parser.add_argument("action", choices=[action], metavar=action, help=argparse.SUPPRESS)
    parser.add_argument("name", metavar="NAME", help="name of a job, folder of a run, or SLURM job id")
    parser.add_argument(
        "--runs", type=Path, default=Path("runs"), help="folder that contains the runs (default: runs)"
    )
    return parser


def logs_parser() -> argparse.ArgumentParser:
    parser = named_parser("logs", "Print the log of a job: supervisor and rank 0, all attempts.")
    parser.add_argument(
        "--rank", type=int, default=0, help="log of another rank, from its last attempt with output"
    )
    parser.add_argument("--task", type=int, help="log of this task of an array")
    parser.add_argument(
        "--follow", action="store_true", help="follow the log as it grows, until the job leaves the queue"
    )
    return parser


def cancel_parser() -> argparse.ArgumentParser:
    parser = named_parser("cancel", "Cancel a job.")
    parser.add_argument(
        "--save", action="store_true", help="request that the run saves its state first, and wait for it"
    )
    return parser


def resume_parser() -> argparse.ArgumentParser:
    return named_parser(
        "resume",
        "Submit a job again that ended before its work was done, and its dependents that never started.",
    )


ACTIONS: dict[str, tuple[Callable[[argparse.Namespace], None], Callable[[], argparse.ArgumentParser]]] = {
    "logs": (show_log, logs_parser),
    "cancel": (cancel_job, cancel_parser),
    "resume": (resume_job, resume_parser),
}

if __name__ == "__main__":
    main()
