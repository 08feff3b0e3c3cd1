"""Checks of the GPUs: memory that others hold, arithmetic, copies, links, and what the driver reports."""

from __future__ import annotations

import shutil
import subprocess
from itertools import permutations

import torch

from lediflow.doctor.finding import Finding, Level, first_line, ok
from lediflow.text import gibibytes

ANOTHER = "use another node, and report this one"
FREE_SHARE = 0.9  # of a GPU's memory, below which others use it
QUERY = ("ecc.errors.uncorrected.volatile.total", "clocks_throttle_reasons.hw_slowdown")


def check_gpus() -> list[Finding]:
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    findings = [finding for index in range(count) for finding in check_gpu(index)]
    if count > 1:
        findings.append(check_links(count))
    return findings + (driver_findings() if count else [])


def check_gpu(index: int) -> list[Finding]:
    device, name = torch.device("cuda", index), f"GPU {index}"
    try:
        free, total = torch.cuda.mem_get_info(device)
        major, minor = torch.cuda.get_device_capability(device)
    except RuntimeError as failure:  # what PyTorch raises for a GPU that does not answer
        return [
            Finding(name, Level.FAULT, f"does not answer: {first_line(failure)}", ANOTHER, is_of_node=True)
        ]
    found = (
        f"{torch.cuda.get_device_name(device)}, {gibibytes(total)} GiB, compute capability {major}.{minor}"
    )
    findings = [ok(name, found)]
    if free < FREE_SHARE * total:
        findings.append(
            Finding(
                name,
                Level.WARNING,
                f"{gibibytes(total - free)} of {gibibytes(total)} GiB are in use",
                "nvidia-smi shows by which processes",
                is_of_node=True,
            )
        )
    if (fault := wrong_numbers(device)) is not None:
        findings.append(Finding(name, Level.FAULT, fault, ANOTHER, is_of_node=True))
    return findings


def wrong_numbers(device: torch.device) -> str | None:
    """A product of matrices in bfloat16 and 64 MiB copied there and back, against the CPU; None if both are right."""
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(512, 512, generator=generator).bfloat16() for _ in range(2))
    expected = left.float() @ right.float()
    try:
        found = (left.to(device) @ right.to(device)).float().cpu()
        error = float((found - expected).norm() / expected.norm())
        if not error < 0.01:
            return f"a product of matrices in bfloat16 is wrong by {error:.1%}"
        numbers = torch.randint(2**31 - 1, (2**24,), generator=generator, dtype=torch.int32)
        if not torch.equal(numbers.to(device).cpu(), numbers):
            return "numbers change when they are copied to the GPU and back"
    except RuntimeError as failure:
        return f"computing fails: {first_line(failure)}"
    return None


def check_links(count: int) -> Finding:
    """Direct access between all pairs of GPUs."""
    without = [
        f"{one} to {other}"
        for one, other in permutations(range(count), 2)
        if not torch.cuda.can_device_access_peer(one, other)
    ]
    if without:
        return Finding(
            "links of GPUs",
            Level.WARNING,
            f"no direct access: {', '.join(without[:4])}",
            "training on several GPUs works and is slower; workstation cards often have none",
        )
    return ok("links of GPUs", "direct access between all")


def driver_findings() -> list[Finding]:
    """Memory errors and throttling, as nvidia-smi reports them; none where it has nothing to say."""
    if shutil.which("nvidia-smi") is None:
        return []
    words = ["nvidia-smi", f"--query-gpu=index,{','.join(QUERY)}", "--format=csv,noheader"]
    try:
        said = subprocess.run(words, capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return [finding for line in said.splitlines() for finding in driver_line(line)]


def driver_line(line: str) -> list[Finding]:
    """The findings of a line of nvidia-smi: index, uncorrected memory errors, hardware slowdown."""
    cells = [cell.strip() for cell in line.split(",")]
    if len(cells) != 1 + len(QUERY):
        return []
    index, errors, slowdown = cells
    findings = []
    if errors.isdigit() and int(errors):
        findings.append(
            Finding(
                f"GPU {index}",
                Level.FAULT,
                f"{errors} uncorrected memory errors since the driver was loaded",
                "use another node; an administrator can reset the GPU",
                is_of_node=True,
            )
        )
    if slowdown == "Active":
        findings.append(
            Finding(
                f"GPU {index}",
                Level.WARNING,
                "slowed down by heat or lack of power",
                "check cooling and power supply, or use another node",
                is_of_node=True,
            )
        )
    return findings
