"""What a job asks SLURM for. Names are submitit's and sbatch's, so that what you know of either holds here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from lediflow.ranges import bounded


@dataclass(kw_only=True)
class SlurmConfig:
    """One job. Empty strings and zeros leave the choice to the cluster."""

    partition: str = ""  # queue; `sinfo` lists them
    account: str = ""  # who pays
    qos: str = ""  # quality of service, where the site has several
    constraint: str = ""  # features a node must have, e.g. a100
    reservation: str = ""  # nodes kept for you
    exclude: str = ""  # nodes never to run on, e.g. gpu[07,12]
    nodes: int = bounded(1, at_least=1)  # machines; one task for each GPU runs on each
    tasks_per_node: int = bounded(1, at_least=1)  # ranks on each node
    gpus_per_node: int = bounded(0, at_least=0)  # as many as tasks_per_node for training on GPUs; 0: no GPUs
    cpus_per_task: int = bounded(1, at_least=1)  # cores of each rank: its data workers run on them
    mem_gb: float = bounded(0.0, at_least=0)  # memory of each node; 0: the cluster's default
    timeout_min: int = bounded(
        0, at_least=0
    )  # time limit of one start in minutes; a run takes as many starts as it needs; 0: the partition's
    signal_delay_s: int = bounded(
        120, at_least=0
    )  # warn the ranks so long before the limit (USR2); they save and the job is requeued
    array_parallelism: int = bounded(0, at_least=0)  # tasks of an array that run at once; 0: all
    requeue: bool = True  # let SLURM start the job again after preemption and node failures
    max_requeues: int = bounded(100, at_least=0)  # starts after the first one, for whatever reason
    crash_retries: int = bounded(3, at_least=0)  # starts after crashes in a row that left no newer checkpoint
    interface: str = ""  # network between nodes, e.g. ib0; empty: NCCL and gloo choose
    setup: list[str] = field(default_factory=list)  # shell lines before the ranks start: modules, proxies
    srun_args: list[str] = field(default_factory=list)  # more arguments of srun, e.g. --cpu-bind=verbose
    environment: dict[str, str] = field(default_factory=dict)  # variables of every rank
    additional_parameters: dict[str, Any] = field(
        default_factory=dict
    )  # more options of sbatch, e.g. {mail-type: END}
