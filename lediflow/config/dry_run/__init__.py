"""`python -m lediflow.train ... --dry-run`: prints the memory, disk space and time of a run without starting it.

The numbers come from the code that trains: costs from lediflow.models.cost, memory from lediflow.engine.memory,
samples from the index of the shards, and speeds from event logs if there are any.
"""

from __future__ import annotations

from omegaconf import DictConfig, OmegaConf

from lediflow.config.composition.schema import TrainCommand
from lediflow.config.dry_run.cost import sample_facts, work_facts, work_of
from lediflow.config.dry_run.duration import duration_table
from lediflow.config.dry_run.memory import disk_facts, memory_table
from lediflow.config.dry_run.nodes import NOTE, nodes_table
from lediflow.models.cost import cost_table
from lediflow.text import facts_table, indented, number_table

MEMORY_NOTE = """\
peak: persistent state plus buffers and activations of a batch, or plus the optimizer's step
N GiB: the largest micro-batch on a GPU of that size (a rank's share halved repeatedly); 0: none fits
activations are those of eager PyTorch; a compiled model keeps less"""

__all__ = ["dry_run", "without_data"]


def without_data(config: DictConfig) -> DictConfig:
    """The configuration with an empty data.path if none was given, since a dry run needs no data."""
    if OmegaConf.is_missing(config.data, "path"):
        config.data.path = ""
    return config


def dry_run(command: TrainCommand, started_ranks: int) -> str:
    """The report of a dry run: sections of aligned tables."""
    work = work_of(command, command.dry_run_ranks or started_ranks)
    sections = {
        f"{command.stage.name} ({command.prior} prior) into {command.run}": facts_table(
            work_facts(command, work)
        ),
        f"One {command.model.image_size}x{command.model.image_size} image, forward": indented(
            cost_table(work.model)
        ),
        f"Memory of each of {work.ranks} ranks, GiB, with micro-batches of {work.micro_batch}": (
            f"{number_table(memory_table(command, work))}\n\n{indented(MEMORY_NOTE)}"
        ),
        "Samples": facts_table(sample_facts(command)),
        "Disk": facts_table(disk_facts(command, work)),
        "Expected time": number_table(duration_table(command, work)),
    }
    if command.nodes:
        sections[f"On up to {command.nodes} nodes"] = (
            f"{number_table(nodes_table(command))}\n\n{indented(NOTE)}"
        )
    return "\n\n".join(f"{title}\n\n{text}" for title, text in sections.items())
