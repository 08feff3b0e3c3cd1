"""`python -m lediflow.studio`: a page in the browser to try a run's models on (see `studio`)."""

from __future__ import annotations

import importlib
import sys
import threading
from types import ModuleType

from omegaconf import DictConfig

from lediflow.config.composition.checks import typed
from lediflow.config.composition.command_line import run_command
from lediflow.config.composition.schema import StudioCommand
from lediflow.config.submission import register_launchers
from lediflow.errors import UserError
from lediflow.studio.folder import private_folder
from lediflow.studio.models import load_models
from lediflow.studio.server import check_host, chosen_port, set_environment, start, stop
from lediflow.studio.tasks import Studio

INSTALL = "the studio needs Gradio, which is not installed: pip install 'lediflow[studio]'"


def main() -> None:
    sys.argv[1:] = ["metadata=false" if word == "--no-metadata" else word for word in sys.argv[1:]]
    run_command("studio", run, register_launchers)


def run(config: DictConfig) -> None:
    """Serve the page until Ctrl-C or SIGTERM, then remove uploads and pictures."""
    command: StudioCommand = typed(config)
    check_host(command.host)
    port = chosen_port(command.port)
    with private_folder() as folder:
        set_environment(folder)
        pages = import_pages()
        models = load_models(command)
        page = pages.build(Studio(models, folder))
        address = start(page, port, pages.LOOKS)
        print(f"studio: {address} ({models.line()}; on {models.pipeline.device}). Ctrl-C ends it", flush=True)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            print("studio: ended; uploads and pictures are removed", flush=True)
        finally:
            stop(page)


def import_pages() -> ModuleType:
    """The module that builds the page; UserError if Gradio is not installed."""
    try:
        return importlib.import_module("lediflow.studio.page")
    except ModuleNotFoundError as error:
        if error.name != "gradio":
            raise
        raise UserError(INSTALL) from error
