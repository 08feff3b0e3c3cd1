"""Models and results of a run as artifacts, sent when their hashes are new."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from functools import partial

from lediflow.records import one_line
from lediflow.run_folder import RunFolder
from lediflow.tracking.wandb.client import WandbRun
from lediflow.tracking.wandb.facts import exported_model, hash_of_files, result_files, used_models
from lediflow.tracking.wandb.record import read_sync_record

log = logging.getLogger(__name__)


def artifacts_of(folder: RunFolder) -> Iterator[tuple[str, str, Callable[[WandbRun], None]]]:
    """(name, hash, how to send it) of each artifact of a run."""
    for used in used_models(folder):
        yield used.name, used.sha256, partial(WandbRun.use_model, model=used)
    if (model := exported_model(folder)) is not None:
        yield "model", model.sha256, partial(WandbRun.add_model, model=model)
    if files := result_files(folder):
        name, root = f"{read_sync_record(folder).run_id}-results", folder.root / "results"
        yield (
            "results",
            hash_of_files(files),
            partial(WandbRun.add_results, name=name, root=root, files=files),
        )


def send_artifacts(run: WandbRun, folder: RunFolder, known: dict[str, str]) -> dict[str, str]:
    """Send the artifacts whose hashes are not known yet; returns the hashes of all that W&B has.

    A fault leaves an artifact out, with a warning: the rows must arrive nevertheless.
    """
    found = dict(known)
    for name, sha256, send in artifacts_of(folder):
        if found.get(name) == sha256:
            continue
        try:
            send(run)
            found[name] = sha256
        except Exception as error:
            fault = one_line(error) or type(error).__name__
            log.warning("W&B does not take the artifact %s (%s); the same command tries again", name, fault)
    return found


def bytes_of_models(folder: RunFolder) -> int:
    """Size of the run's exported model and of those that it was trained with."""
    models = [*used_models(folder), *filter(None, [exported_model(folder)])]
    return sum(path.stat().st_size for model in models for path in model.files)
