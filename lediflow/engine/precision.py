"""Compute in bfloat16, keep what must stay exact in float32."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from lediflow.engine.float8 import check_float8, use_float8
from lediflow.engine.protocol import EngineConfig, M
from lediflow.errors import UserError
from lediflow.nn.levels import recompute_activations

PRECISIONS = ("float32", "bfloat16")
COMPILE_MODES = ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")


class Autocast(nn.Module):
    """Runs a module under bfloat16 autocast; times and Fourier features stay in float32."""

    def __init__(self, module: nn.Module, device_type: str) -> None:
        super().__init__()
        self.inner = module
        self.device_type = device_type

    def forward(self, *args, **kwargs):
        with torch.autocast(self.device_type, torch.bfloat16):
            return self.inner(*args, **kwargs)


def choose_precision(requested: str, device: torch.device) -> str:
    """`auto` is bfloat16 where the device multiplies in it, float32 elsewhere (where it would be emulated)."""
    if requested == "auto":
        return "bfloat16" if multiplies_in_bfloat16(device) else "float32"
    if requested not in PRECISIONS:
        raise UserError(f"engine.precision={requested!r} is unknown; use auto, {' or '.join(PRECISIONS)}")
    return requested


def chosen_compile_mode(is_compiled: bool, mode: str) -> str | None:
    """torch.compile's mode; None: not compiled."""
    if mode not in COMPILE_MODES:
        raise UserError(f"engine.compile_mode={mode!r} is unknown; use one of {', '.join(COMPILE_MODES)}")
    return mode if is_compiled else None


def multiplies_in_bfloat16(device: torch.device) -> bool:
    """Whether the device has bfloat16 arithmetic in hardware."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    abilities = torch.cpu.get_capabilities()
    return bool(abilities.get("avx512_bf16") or abilities.get("amx_bf16"))


def computing_in(
    precision: str,
    module: nn.Module,
    device: torch.device,
    *,
    compile_mode: str | None,
    recompute: bool = False,
    float8: bool = False,
) -> nn.Module:
    """The module as the training loop calls it: recomputing or compiled if asked, under autocast if bfloat16."""
    if float8:
        use_float8(module)
    if recompute:
        recompute_activations(module)
    if compile_mode is not None:
        module.compile(mode=compile_mode)
    return Autocast(module, device.type) if precision == "bfloat16" else module


def resolved(config: EngineConfig, device: torch.device) -> EngineConfig:
    """The configuration with `auto` and null replaced by their values on this device."""
    is_compiled = compiles(config, device)
    chosen_compile_mode(is_compiled, config.compile_mode)  # UserError for an unknown mode, also if unused
    precision = choose_precision(config.precision, device)
    if config.float8:
        check_rounded(precision)
        check_float8(device)
    return replace(
        config,
        precision=precision,
        compile=is_compiled,
        cuda_graphs=records_passes(config, device, is_compiled),
    )


def check_options(config: EngineConfig) -> None:
    """UserError for options that no device allows, so that they are refused in a dry run and before a job starts."""
    gpu = torch.device("cuda")
    if config.precision != "auto":
        precision = choose_precision(config.precision, gpu)
        if config.float8:
            check_rounded(precision)
    is_compiled = compiles(config, gpu)
    chosen_compile_mode(is_compiled, config.compile_mode)
    records_passes(config, gpu, is_compiled)


def check_rounded(precision: str) -> None:
    """UserError for a precision whose products are not rounded to 8 bits."""
    if precision != "bfloat16":
        raise UserError(
            f"engine.float8=true rounds products of bfloat16, but engine.precision is {precision}; use "
            "engine.precision=bfloat16"
        )


def compiles(config: EngineConfig, device: torch.device) -> bool:
    """Whether modules are compiled; by default on a GPU, but not with ZeRO 3."""
    # stage 3 gathers weights in hooks, and each hook ends a compiled graph
    is_worthwhile = device.type == "cuda" and not (config.name == "deepspeed" and config.zero == 3)
    return is_worthwhile if config.compile is None else config.compile


def records_passes(config: EngineConfig, device: torch.device, is_compiled: bool) -> bool:
    """Whether forward and backward pass are recorded as a CUDA graph; UserError where that is asked and impossible."""
    has_own_graphs = is_compiled and config.compile_mode in ("reduce-overhead", "max-autotune")
    obstacles = {
        f"engine={config.name}, whose communication between ranks is not recorded": config.name
        == "deepspeed",
        f"engine.compile_mode={config.compile_mode}, which has CUDA graphs of its own": has_own_graphs,
        f"a device of type {device.type}": device.type != "cuda",
    }
    found = [words for words, is_met in obstacles.items() if is_met]
    if found and config.cuda_graphs:
        raise UserError(f"engine.cuda_graphs=true does not go with {found[0]}; leave it at null")
    return not found if config.cuda_graphs is None else config.cuda_graphs


def trained_in(config: EngineConfig, module: nn.Module, device: torch.device) -> nn.Module:
    """The module as a stage calls it: recomputing, compiled and under autocast as configured."""
    return computing_in(
        config.precision,
        module,
        device,
        compile_mode=chosen_compile_mode(bool(config.compile), config.compile_mode),
        recompute=config.activation_checkpointing,
        float8=config.float8,
    )


def frozen_in(config: EngineConfig, module: M, device: torch.device) -> M:
    """A model without gradients, each of whose parts computes as the trained module does."""
    module.to(device).eval().requires_grad_(False)
    for name, part in module.named_children():
        setattr(module, name, trained_in(replace(config, activation_checkpointing=False), part, device))
    return module
