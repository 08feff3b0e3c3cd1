"""`python -m lediflow.dashboard create|update`: dashboards of the stages as workspaces of Weights & Biases.

panels.py lists the panels --workspace.py--> W&B; --page.py--> a page that shows the specification without a server
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from lediflow.dashboard.page import build_page, read_numbers
from lediflow.dashboard.panels import Dashboard, dashboard_of
from lediflow.dashboard.workspace import (
    create,
    create_report,
    require_login,
    server_errors,
    specification,
    update,
)
from lediflow.disk import whole_or_absent
from lediflow.errors import UserError, exit_on_errors
from lediflow.records import as_record
from lediflow.run_folder import REWRITTEN, RunFolder
from lediflow.stages import STAGES

STAGE = {"stage": {"name": str}}
ACTIONS = {"create": create, "update": update}


def main() -> None:
    arguments = parse_arguments()
    with exit_on_errors():
        run(arguments)


def run(arguments: argparse.Namespace) -> None:
    """Write the specification where that is asked for, then save the dashboards, unless it is a dry run."""
    dashboards = [dashboard_of(stage) for stage in arguments.stage or stages_of(arguments.run)]
    if arguments.output or arguments.dry_run:
        write_specification(dashboards, arguments)
    if arguments.dry_run:
        return
    with server_errors():
        entity = require_login(arguments.entity)
        for dashboard in dashboards:
            address = ACTIONS[arguments.action](dashboard, project=arguments.project, entity=entity)
            print(f"{dashboard.title}: {address}")
            if arguments.report:
                address = create_report(dashboard, project=arguments.project, entity=entity)
                print(f"{dashboard.title}, report (a draft): {address}")


def stages_of(run: Path | None) -> list[str]:
    """The stage of a run; every stage without a run."""
    if run is None:
        return list(STAGES)
    folder = RunFolder(run)
    return [as_record(folder.recorded_options(), str(folder.config), REWRITTEN, STAGE)["stage"]["name"]]


def write_specification(dashboards: list[Dashboard], arguments: argparse.Namespace) -> None:
    """The specification as JSON, and as a page beside it; without --output the JSON goes to the terminal."""
    found = {
        dashboard.stage: specification(dashboard, project=arguments.project, entity=arguments.entity or "")
        for dashboard in dashboards
    }
    if arguments.output is None:
        print(as_json(found))
        return
    path: Path = arguments.output
    if path.is_dir():
        raise UserError(
            f"--output={path} is a folder; give the name of a file in it: {path / 'dashboard.html'}"
        )
    numbers = read_numbers(arguments.run) if arguments.run else None
    page = build_page(dashboards, arguments.project, numbers)
    for suffix, content in ((".json", as_json(found) + "\n"), (".html", page)):
        with whole_or_absent(path.with_suffix(suffix)) as stream:
            stream.write(content.encode())
        print(f"specification: {path.with_suffix(suffix)}")


def as_json(value: Any) -> str:
    return json.dumps(value, indent=1, allow_nan=False)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m lediflow.dashboard",
        description="Save a dashboard for each stage as a workspace of Weights & Biases; needs `wandb login`.",
    )
    parser.add_argument(
        "action", choices=ACTIONS, help="create new workspaces, or replace those created before"
    )
    parser.add_argument("--project", required=True, help="W&B project: tracking.wandb_project of the runs")
    parser.add_argument("--entity", help="W&B team or user (default: the account's)")
    parser.add_argument(
        "--stage", nargs="+", metavar="STAGE", help=f"stages (default: all, {', '.join(STAGES)})"
    )
    parser.add_argument(
        "--report", action="store_true", help="save the same panels as a draft of a W&B report, too"
    )
    parser.add_argument(
        "--dry-run", "--dry_run", action="store_true", help="save nothing at W&B: no login, no network"
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="write the specification to FILE.json and, as a page, to FILE.html",
    )
    parser.add_argument("--run", type=Path, metavar="RUN", help="run folder whose numbers the page shows")
    return parser.parse_args()
