"""`python -m lediflow.report RUN...`: run folders -> one HTML page that needs no network.

run folders --runs, collect, training--> content --training, quality, figure, page, templates/--> HTML
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

from lediflow.arguments import parse
from lediflow.disk import whole_or_absent
from lediflow.errors import UserError, disk_errors_explained, exit_on_errors
from lediflow.records import RecordError, read_dataclass, read_json, typed
from lediflow.report.collect import report_data
from lediflow.report.content import CommandRun, ReportData
from lediflow.report.page import BEGINNING, build_report
from lediflow.report.runs import read_run
from lediflow.tracking.tables import write_csv
from lediflow.training.prior_width import describe_width

LEAD = (
    "LeDiFlow starts the flow not from Gaussian noise but from a prior that an auxiliary model has learned for each "
    "image, so that few solver steps do the work of many."
)


def main() -> None:
    arguments = parse_arguments()
    arguments.runs = [*{path.resolve(): path for path in arguments.runs}.values()]  # each once
    with exit_on_errors():
        if arguments.csv:
            print(
                f"table: {write_csv(arguments.runs, arguments.output or Path('report.csv'))}", file=sys.stderr
            )
            return
        arguments.output = arguments.output or Path("report.html")
        refuse_other_file(arguments.output)
        commands = read_commands(arguments.commands) if arguments.commands else []
        runs = [read_run(path) for path in arguments.runs]
        data = report_data(
            runs, title=arguments.title, lead=arguments.lead, commands=commands, edits=arguments.edits
        )
        print(f"report: {write_report(arguments.output, data)}")
        for run in runs:
            if (width := describe_width(run.facts)) is not None:
                print(f"{run.folder.root}: width added to the prior {width}")


def refuse_other_file(path: Path) -> None:
    """UserError if a file that is not a report would be replaced."""
    if path.is_file() and path.stat().st_size:
        with path.open("rb") as stream:
            if stream.read(len(BEGINNING)) != BEGINNING.encode():
                raise UserError(
                    f"--output={path} exists and is not a report of this command; choose another name"
                )


def read_commands(path: Path) -> list[CommandRun]:
    """The commands of a JSON file, other keys ignored. RecordError if it has another form."""
    advice = "give a JSON list of {purpose, command, seconds}"
    rows, known = read_json(path, advice), [field.name for field in fields(CommandRun)]
    try:
        return [
            read_dataclass(CommandRun, {key: row[key] for key in known if key in row}, f"[{place}]")
            for place, row in enumerate(typed(list[dict[str, Any]], rows, "the file"))
        ]
    except ValueError as error:
        raise RecordError(f"--commands={path}: {error}; {advice}") from error


def write_report(path: Path, data: ReportData) -> Path:
    """Write the page and return its path. A file appears whole; a link or device (/dev/stdout) is written through."""
    if path.is_dir():
        raise UserError(f"--output={path} is a folder; give the name of a file in it: {path / 'report.html'}")
    content = build_report(data).encode()
    if path.is_symlink() or (path.exists() and not path.is_file()):
        with disk_errors_explained(path):
            path.write_bytes(content)
    else:
        with whole_or_absent(path) as stream:
            stream.write(content)
    return path


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m lediflow.report",
        description="Write one HTML page about runs: samples, interactive curves, metrics, history, configurations.",
    )
    parser.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN", help="run folders of lediflow.train, in any order"
    )
    parser.add_argument(
        "--output", type=Path, help="file to write (default: report.html; report.csv with --csv)"
    )
    parser.add_argument(
        "--csv",
        action="store_true",
        help="write the numbers of all events as a table instead, also of unfinished runs",
    )
    parser.add_argument("--title", default="LeDiFlow", help="title of the page")
    parser.add_argument("--lead", default=LEAD, help="introduction below the title")
    parser.add_argument(
        "--commands", type=Path, help="JSON list of {purpose, command, seconds} to list at the end"
    )
    parser.add_argument(
        "--edits",
        nargs="+",
        type=Path,
        default=[],
        metavar="DIR",
        help="output folders of lediflow.edit, whose pictures and numbers are shown",
    )
    return parse(parser)
