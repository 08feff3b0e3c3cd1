"""`python -m lediflow.sync RUN...`: write or update the W&B run of each run folder, from its event log.

    python -m lediflow.sync runs/flow                   once; again sends only what is new
    python -m lediflow.sync runs/* --mode online        on a login node, where W&B can be reached
    python -m lediflow.sync runs/flow --follow          until the training has ended, beside its job

Without --mode it is tracking.wandb_mode of the run: offline, unless it was trained with another one. Nothing leaves the
machine offline: the run is written to RUN/wandb/offline-run-*, for `wandb sync` on another machine.
"""

from __future__ import annotations

import argparse
import logging
import os
import shlex
import sys
from pathlib import Path
from typing import Any

from lediflow.arguments import parse
from lediflow.errors import BAD_REQUEST, UserError, exit_on_errors
from lediflow.records import RecordError
from lediflow.run_folder import RunFolder
from lediflow.tracking.wandb.client import MODES, check_mode
from lediflow.tracking.wandb.record import Target
from lediflow.tracking.wandb.sending import Sent, require_log, synchronise
from lediflow.tracking.wandb.sync_loop import follow, follow_parent


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    arguments = parse(parser())
    with exit_on_errors("interrupted; the same command continues"):
        sys.exit(run(arguments))


def run(arguments: argparse.Namespace) -> int:
    """Synchronise all folders; BAD_REQUEST if one of several cannot be, after all others."""
    folders = [RunFolder(path) for path in arguments.runs]
    if arguments.until_eof:
        return 0 if follow_parent(folders[0], target_of(folders[0], arguments)) else 1
    if arguments.follow and len(folders) > 1:
        raise UserError("--follow takes one run folder; start one command for each")
    status = 0
    for folder in folders:
        try:
            target = target_of(folder, arguments)
            if arguments.follow:
                follow(folder, target, is_renewed=arguments.new)
            sent = synchronise(folder, target, is_renewed=arguments.new and not arguments.follow)
            print(f"{folder.root}: {sentence(sent, target)}")
        except UserError as error:
            if len(folders) == 1:
                raise
            print(f"error: {error}", file=sys.stderr)
            status = BAD_REQUEST
    return status


def target_of(folder: RunFolder, arguments: argparse.Namespace) -> Target:
    """Mode, project and entity: from the command line, wandb's variables, or the run's options, in this order.

    UserError if none of these gives a mode that exists.
    """
    if not arguments.until_eof:
        require_log(folder)
    try:
        recorded: Any = folder.recorded_options().get("tracking")
    except RecordError:
        recorded = None
    options = recorded if isinstance(recorded, dict) else {}
    variable = os.environ.get("WANDB_MODE")
    mode = arguments.mode or variable or options.get("wandb_mode") or Target.mode
    check_mode(mode, "WANDB_MODE" if variable else "tracking.wandb_mode of the run")
    project = arguments.project or os.environ.get("WANDB_PROJECT") or options.get("wandb_project")
    entity = arguments.entity or os.environ.get("WANDB_ENTITY") or options.get("wandb_entity")
    return Target(mode, project or Target.project, entity)


def sentence(sent: Sent, target: Target) -> str:
    """What was done, and what to do next."""
    if target.mode == "offline":
        done = f"wrote {sent.rows:,} rows to {sent.place}" if sent.is_new else f"nothing new in {sent.place}"
        if sent.is_online_too:
            return f"{done}; W&B has rows of this run already and would get them twice: use --mode online to upload"
        place = shlex.quote(str(sent.place))
        return f"{done}; to upload it: wandb sync {place}, or --mode online where W&B can be reached"
    done = f"sent {sent.rows:,} rows to {sent.place}" if sent.is_new else f"nothing new at {sent.place}"
    if not sent.repeated:
        return done
    return (
        f"{done}; {sent.repeated:,} points that were sent before a crash and trained again keep their first values, "
        "--new writes a new W&B run from the log alone"
    )


def parser() -> argparse.ArgumentParser:
    assert __doc__ is not None
    lead, _, rest = __doc__.replace("`", "").partition("\n\n")
    made = argparse.ArgumentParser(
        prog="python -m lediflow.sync",
        description=f"{lead}\n\n{rest}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run folder of lediflow.train")
    made.add_argument("--follow", action="store_true", help="go on until the training has ended")
    made.add_argument("--mode", choices=MODES, help="whether to write files or to send to the server")
    made.add_argument("--project", help="W&B project (default: tracking.wandb_project of the run)")
    made.add_argument("--entity", help="W&B team (default: tracking.wandb_entity of the run)")
    made.add_argument(
        "--new", action="store_true", help="make another W&B run, from the log alone, under another id"
    )
    # for a training: follow until it closes the standard input
    made.add_argument("--until-eof", action="store_true", help=argparse.SUPPRESS)
    return made


if __name__ == "__main__":
    main()
