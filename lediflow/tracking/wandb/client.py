"""One W&B run, open for rows. The only module that imports wandb, and only when it is used.

wandb is set to collect nothing by itself (git, command line, packages, system metrics, console): what a view shows
comes from the run folder and is free of secrets.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import psutil

from lediflow.errors import UserError
from lediflow.records import one_line
from lediflow.tracking.event_log import PICTURES, Event, logged_pictures
from lediflow.tracking.wandb.facts import Model
from lediflow.tracking.wandb.record import Target
from lediflow.tracking.wandb.rows import Row

log = logging.getLogger(__name__)

MODES = ("offline", "online")
INSTALL = "pip install 'lediflow[wandb]'"
INIT_SECONDS = 60.0  # a server that does not answer for so long is taken to be away
SETTINGS: dict[str, Any] = {
    "quiet": True,
    "silent": True,
    "console": "off",
    "disable_git": True,
    "disable_code": True,
    "symlink": False,
    "x_disable_meta": True,
    "x_disable_stats": True,
    "x_disable_machine_info": True,
    "x_save_requirements": False,
    "init_timeout": INIT_SECONDS,
    "finish_timeout_raises": True,
}


# how a file becomes part of an artifact: without a copy in HOME, which may be full or read-only
AS_IT_IS: dict[str, Any] = {"policy": "immutable", "skip_cache": True}


class LoginError(UserError):
    """W&B refuses the account: trying again does not help."""


def import_wandb() -> ModuleType:
    """The wandb package, or a UserError that says how to install it."""
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # reports of its faults, which go to its makers
    # its debug.log on a full disk: a traceback for each line, before the error that says what is wrong
    logging.raiseExceptions = False
    with contextlib.suppress(ImportError):
        return importlib.import_module("wandb")
    raise UserError(f"wandb is not installed; `{INSTALL}`")


def check_mode(mode: str, source: str = "tracking.wandb_mode") -> None:
    """UserError for a mode that does not exist; `source` is the option or variable that gave it."""
    if mode not in MODES:
        raise UserError(f"{source} is {mode!r}; choose one of {', '.join(MODES)}")


class WandbRun:
    """A run that is open at W&B, or as a file. Its methods raise wandb's exceptions."""

    def __init__(
        self,
        target: Target,
        run_id: str,
        *,
        folder: Path,
        name: str,
        config: dict[str, Any],
        finish_seconds: float = 0,
    ) -> None:
        """Open the run, which continues if it exists; its files are written below `folder`.

        `finish_seconds` bounds how long `close` waits for uploads; 0 is no bound. Raises LoginError if W&B refuses
        the account.
        """
        self.wandb = import_wandb()
        try:
            self.run = self.wandb.init(
                project=target.project,
                entity=target.entity,
                mode=target.mode,
                id=run_id,
                resume="allow",
                name=name,
                dir=folder,
                config=config,
                allow_val_change=True,
                settings=SETTINGS | {"finish_timeout": float(finish_seconds)},
            )
        except (self.wandb.errors.UsageError, self.wandb.errors.AuthenticationError) as error:
            raise LoginError(
                f"W&B refuses to open the run ({one_line(error)}); `wandb login`, or set WANDB_API_KEY, or stay "
                "offline: tracking.wandb_mode=offline for a training, --mode offline for lediflow.sync"
            ) from error
        except BaseException:
            self.drop()  # wandb-core keeps the id of a run that it could not open
            raise
        self.run.define_metric("images_seen", hidden=True)
        # summaries are those of the log
        self.run.define_metric("*", step_metric="images_seen", summary="none")

    @property
    def next_step(self) -> int:
        """The step after the last one that the server has; 0 for a new run, and offline."""
        return int(self.run.starting_step)

    @property
    def url(self) -> str | None:
        return None if self.run.offline else self.run.url

    @property
    def files(self) -> Path:
        """The folder in which wandb keeps what it writes for this run."""
        return Path(self.run.dir).parent

    def send(self, rows: Iterable[Row], run_folder: Path) -> int:
        """Send rows, with the pictures that lie in the run folder; the number of rows.

        Pictures that cannot be read are left out; one warning says how many, and names the first.
        """
        count, faults = 0, list[str]()
        for row in rows:
            count += 1
            images = dict(self._images(row.pictures, run_folder, faults)) if row.pictures else {}
            values = {"images_seen": row.images_seen, "_timestamp": row.timestamp, **row.values, **images}
            self.run.log(values, step=row.step, commit=True)
            if row.alert:
                title, text = row.alert
                self.run.alert(title=title, text=text)
        if faults:
            log.warning(
                "W&B does not get pictures that cannot be read (%d); the first is %s", len(faults), faults[0]
            )
        return count

    def _images(self, event: Event, run_folder: Path, faults: list[str]) -> Iterator[tuple[str, Any]]:
        """The pictures of an event; each that cannot be read is appended to `faults` and left out."""
        for name, path, caption in logged_pictures(event, run_folder):
            try:
                yield f"{PICTURES}/{name}", self.wandb.Image(str(path), caption=caption)
            except (OSError, ValueError, SyntaxError) as error:  # what PIL raises for a damaged file
                faults.append(f"{PICTURES}/{name} at {event['images_seen']:,} images: {one_line(error)}")

    def summarise(self, summary: dict[str, Any]) -> None:
        self.run.summary.update(summary)

    def reconfigure(self, config: dict[str, Any]) -> None:
        self.run.config.update(config, allow_val_change=True)

    def add_model(self, model: Model) -> None:
        """Send an exported model as an artifact of this run."""
        aliases = ["latest", f"images-{model.facts.get('images_seen', 0)}"]
        self.run.log_artifact(self._model(model), aliases=aliases)

    def use_model(self, model: Model) -> None:
        """Declare an exported model of another run as an input of this one; it is sent if W&B does not have it.

        The public `use_artifact` needs a server; the record that it writes does not.
        """
        send = getattr(self.run, "_log_artifact", None)
        if send is None:
            log.warning(
                "this wandb cannot record that the run uses %s; its hash is in the configuration", model.name
            )
            return
        send(self._model(model), aliases=[], is_user_created=True, use_after_commit=True)

    def add_results(self, name: str, root: Path, files: Iterable[Path]) -> None:
        """Send files of results as one artifact."""
        artifact = self.wandb.Artifact(name, "results")
        for path in files:
            artifact.add_file(str(path), name=str(path.relative_to(root)), **AS_IT_IS)
        self.run.log_artifact(artifact)

    def _model(self, model: Model) -> Any:
        artifact = self.wandb.Artifact(model.name, "model", metadata=model.facts)
        for path in model.files:
            artifact.add_file(str(path), **AS_IT_IS)
        return artifact

    def close(self) -> None:
        """Finish the run; TimeoutError if uploads do not end in time."""
        self.run.finish()

    def drop(self) -> None:
        """Forget the run without waiting for uploads; the next run gets a wandb-core process of its own."""
        end_service()
        with contextlib.suppress(Exception, SystemExit):  # it exits with the status of wandb-core
            self.wandb.teardown(exit_code=1)


def end_service() -> None:
    """Kill the wandb-core processes that this process started: one of them may be hanging."""
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if process.name() == "wandb-core":
                process.kill()
