"""The device of this rank."""

from __future__ import annotations

import torch

from lediflow.errors import UserError


def choose_device(requested: str, local_rank: int = 0) -> torch.device:
    """`auto` is this rank's GPU where there is one, else the CPU; anything else is taken at its word or refused."""
    if requested == "auto":
        requested = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(requested)
    except RuntimeError as error:
        raise UserError(f"device={requested} is not known to PyTorch; use auto, cpu or cuda") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(
            f"device={requested} was asked for, but this PyTorch ({torch.__version__}) sees no CUDA GPU; "
            "install a CUDA build of torch, or use device=auto"
        )
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", local_rank % torch.cuda.device_count())
        torch.cuda.set_device(device)
    return device


def device_name(device: torch.device) -> str:
    """What a time was taken on: the GPU as its maker calls it, or "cpu"."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
