"""`python -m lediflow.report RUN...`: run folders -> one HTML page that needs no network."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from lediflow.config.cli import BAD_REQUEST
from lediflow.errors import UserError
from lediflow.evaluation.report import read_run, report_data
from lediflow.tracking.html import write_report
from lediflow.tracking.report_data import CommandRun

LEAD = (
    "LeDiFlow starts the flow not from Gaussian noise but from a prior that an auxiliary model has learned for each "
    "image, so that few solver steps do the work of many."
)


def main() -> None:
    arguments = parse_arguments()
    try:
        commands = read_commands(arguments.commands) if arguments.commands else []
        runs = [read_run(path) for path in arguments.runs]
        data = report_data(runs, title=arguments.title, lead=arguments.lead, commands=commands)
        print(f"report: {write_report(arguments.output, data)}")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(BAD_REQUEST)


def read_commands(path: Path) -> list[CommandRun]:
    rows = json.loads(path.read_text())
    return [
        CommandRun(**{key: row.get(key) for key in ("purpose", "command", "seconds", "peak_memory_mib")})
        for row in rows
    ]


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m lediflow.report",
        description="One HTML page about finished runs: samples, curves, metrics, priors, where the numbers come from.",
    )
    parser.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN", help="run folders of lediflow.train, in any order"
    )
    parser.add_argument(
        "--output", type=Path, default=Path("report.html"), help="the page (default: report.html)"
    )
    parser.add_argument("--title", default="LeDiFlow", help="its headline")
    parser.add_argument("--lead", default=LEAD, help="the sentences under the headline")
    parser.add_argument(
        "--commands", type=Path, help="JSON list of {purpose, command, seconds} to print at the end"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
