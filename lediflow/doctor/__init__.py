"""`python -m lediflow.doctor`: check this machine before a long run.

    python -m lediflow.doctor                              a table; what to do about each warning and fault
    python -m lediflow.doctor --json                       the same for programs
    srun -N 8 --ntasks-per-node=1 python -m lediflow.doctor --exclude-file bad_nodes
                                                           names of nodes with faults, for slurm.exclude

Exit status: 0, 1 with warnings, 2 with faults.

finding     what a check found, and how bad it is
software    PyTorch, the compiler, packages, routes of neighborhood attention
hardware    GPUs
system      memory, folders, limits, SLURM, W&B
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from lediflow.arguments import parse
from lediflow.caches import keep_compiled
from lediflow.doctor.finding import Finding, Level
from lediflow.doctor.hardware import check_gpus
from lediflow.doctor.software import check_compiler, check_packages, check_pytorch, check_routes
from lediflow.doctor.system import (
    check_folders,
    check_limits,
    check_memory,
    check_shared_memory,
    check_slurm,
    check_wandb,
)
from lediflow.errors import exit_on_errors
from lediflow.text import aligned_table


def main() -> None:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(
        prog="python -m lediflow.doctor",
        description=__doc__.partition("\n\nfinding")[0].replace("`", ""),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--exclude-file", type=Path, metavar="FILE", help="add this node's name to FILE if it has a fault"
    )
    arguments = parse(parser)
    with exit_on_errors():
        keep_compiled()
        findings = all_findings()
        if arguments.exclude_file and (faults := [each for each in findings if is_fault_of_node(each)]):
            exclude(arguments.exclude_file, node_name())
            print(f"excluded {node_name()}: {faults[0].name}, {faults[0].found}", file=sys.stderr)
        print(as_json(findings) if arguments.json else as_text(findings))
        sys.exit(max(finding.level for finding in findings))


def all_findings() -> list[Finding]:
    """Every check; kernels and the compiler are tried on a GPU if all GPUs are without faults."""
    gpus = check_gpus()
    is_sound = bool(gpus) and all(finding.level is not Level.FAULT for finding in gpus)
    device = torch.device("cuda" if is_sound else "cpu")
    return [
        check_pytorch(),
        *gpus,
        *check_routes(device),
        check_compiler(device),
        *check_packages(),
        check_memory(),
        *check_shared_memory(),
        *check_folders(),
        check_limits(),
        check_slurm(),
        check_wandb(),
    ]


def node_name() -> str:
    """The name by which SLURM knows this machine, else its host name."""
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname().partition(".")[0]


def is_fault_of_node(finding: Finding) -> bool:
    return finding.level is Level.FAULT and finding.is_of_node


def exclude(path: Path, node: str) -> None:
    """Add a line with the node's name, unless the file has it; several nodes may do so at once."""
    if path.exists() and node in path.read_text().split():
        return
    with path.open("a") as stream:
        stream.write(f"{node}\n")


def as_json(findings: Sequence[Finding]) -> str:
    rows = [
        {
            "name": each.name,
            "level": each.level.name.lower(),
            "found": each.found,
            "advice": each.advice,
            "is_of_node": each.is_of_node,
        }
        for each in findings
    ]
    worst = max(finding.level for finding in findings)
    return json.dumps({"node": node_name(), "status": worst.name.lower(), "findings": rows}, indent=2)


def as_text(findings: Sequence[Finding]) -> str:
    """A line for each finding, the advice below it, and a summary."""
    rows = [[each.level.name.lower(), each.name, each.found] for each in findings]
    lines = []
    for line, each in zip(aligned_table(rows, [False] * 3).splitlines(), findings, strict=True):
        lines += [line, *([f"{'':9}-> {each.advice}"] if each.advice else [])]
    counts = {level: sum(each.level is level for each in findings) for level in Level}
    summary = ", ".join(
        f"{counts[level]} {level.name.lower()}{'' if counts[level] == 1 else 's'}"
        for level in (Level.FAULT, Level.WARNING)
    )
    return "\n".join([*lines, "", f"{node_name()}: {summary}"])
