"""Hydra launchers that queue jobs on SLURM: `-m hydra/launcher=submitit_slurm` and `-m hydra/launcher=lediflow_slurm`.

Both create the same supervised jobs as `lediflow.submit`. submitit_slurm submits an array through submitit and waits
until it ends; lediflow_slurm returns at once. Each file of conf/slurm is a preset of both: submitit_horeka, ...
Options are those of SlurmConfig: `hydra.launcher.partition=...`.
"""

from __future__ import annotations

import dataclasses
import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from lediflow.cluster import slurm
from lediflow.cluster.jobs import JobFolder, JobRecord, SlurmConfig, job_folder, newest_end, now
from lediflow.cluster.running.attempt import Outcome
from lediflow.cluster.submitting.submission import copy_code, queue_by_submitit, refuse_if_queued, submit
from lediflow.config.composition.sweep import config_keys, without_excluded
from lediflow.config.submission.requests import Request, job_record
from lediflow.ranges import check_ranges

log = logging.getLogger(__name__)

DEFAULT = "node_4xa100"
LOOK_EVERY_SECONDS = 2.0
# Hydra accepts launchers only from packages of this name, so this module is registered under it as well.
PLUGINS = "hydra_plugins.lediflow"


class QueueLauncher(Launcher):
    """Hydra launcher that queues the jobs and returns."""

    __module__ = PLUGINS

    def __init__(self, **options: Any) -> None:
        plain: Any = OmegaConf.to_container(OmegaConf.create(options), resolve=True)
        self.slurm = SlurmConfig(**plain)

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.config = config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Check every job, then queue all of them."""
        check_ranges(self.slurm, "hydra.launcher.")
        runs = Path(str(self.config.paths.runs))
        jobs = [self.record(list(overrides), runs) for overrides in job_overrides]
        snapshot = str(copy_code(runs))
        records = [dataclasses.replace(job, snapshot=snapshot) for job in jobs]
        folders = [job_folder(record.name, runs) for record in records]
        self.queue(folders, records)
        return [JobReturn(status=JobStatus.COMPLETED) for _ in records]

    def record(self, overrides: list[str], runs: Path) -> JobRecord:
        request = Request(str(self.config.hydra.job.name), overrides, [])
        telling = without_excluded(overrides, config_keys(self.config.hydra))
        return job_record(request, overrides, telling, runs, self.slurm)

    def queue(self, folders: Sequence[JobFolder], records: Sequence[JobRecord]) -> None:
        for folder, record in zip(folders, records, strict=True):
            queued = submit(folder, record, self.slurm)
            log.info(
                "%s is job %s; python -m lediflow.status logs %s", record.name, queued.job_id, record.name
            )


class WaitingLauncher(QueueLauncher):
    """Hydra launcher that queues the jobs through submitit and waits for them; exit status 1 if one failed."""

    __module__ = PLUGINS

    def queue(self, folders: Sequence[JobFolder], records: Sequence[JobRecord]) -> None:
        for folder, record in zip(folders, records, strict=True):
            refuse_if_queued(folder, record.name)
            folder.write(dataclasses.replace(record, slurm=dataclasses.asdict(self.slurm)))
        ids = queue_by_submitit(folders, records, self.slurm)
        for folder, record, job in zip(folders, records, ids, strict=True):
            ours = dataclasses.asdict(self.slurm)
            folder.write(dataclasses.replace(record, slurm=ours, job_ids=[job], submitted=now()))
            log.info("%s is job %s, log %s", record.name, job, folder.log / f"{job}.log")
        wait_for(ids)
        faults = [fault for folder, job in zip(folders, ids, strict=True) if (fault := fault_of(folder, job))]
        for fault in faults:
            print(f"error: {fault}", file=sys.stderr)
        if faults:
            sys.exit(1)


def wait_for(ids: Sequence[str]) -> None:
    """Wait until none of the jobs is in the queue; a job that SLURM requeues stays in it.

    If the controller does not answer, for instance during a restart, keep asking.
    """
    arrays = sorted({job.partition("_")[0] for job in ids})
    is_answered = True
    while True:
        try:
            if not slurm.queue(arrays):
                return
            is_answered = True
        except slurm.SlurmError as error:
            if is_answered:
                log.warning("%s; the jobs continue; still waiting for them", error)
            is_answered = False
        time.sleep(LOOK_EVERY_SECONDS)


def fault_of(folder: JobFolder, job: str) -> str | None:
    """Why a job that left the queue has not done its work; None if it has."""
    end = newest_end(folder.attempts(job))
    if end is None:
        return f"{folder.name}: job {job} ended without a record; see {folder.log} and `sacct --jobs {job}`"
    if end["decision"] == Outcome.DONE:
        return None
    return f"{folder.name}: job {job} {end['decision']}: {end['reason']}"


def register_launchers(presets: Path) -> None:
    """Register the launchers and their presets; can be called again.

    Must run after Hydra's plugin search, so that submitit_slurm replaces the launcher of hydra-submitit-launcher.
    """
    sys.modules.setdefault(PLUGINS, sys.modules[__name__])
    plugins, store = Plugins.instance(), ConfigStore.instance()
    for launcher, prefix in ((WaitingLauncher, "submitit"), (QueueLauncher, "lediflow")):
        plugins.register(launcher)
        schema = dataclasses.make_dataclass(
            f"{launcher.__name__}Options", [("_target_", str, f"{PLUGINS}.{launcher.__name__}")], bases=(SlurmConfig,),
            kw_only=True,
        )  # fmt: skip
        for preset in sorted(presets.glob("*.yaml")):
            node = OmegaConf.merge(OmegaConf.structured(schema), OmegaConf.load(preset))
            names = [preset.stem] + (["slurm"] if preset.stem == DEFAULT else [])
            for name in names:
                store.store(group="hydra/launcher", name=f"{prefix}_{name}", node=node, provider="lediflow")
