"""Measure whole models on this machine's device: forward pass, forward and backward pass, training step.

    python tools/bench/model.py                                                 the demo's flow model on a CPU
    python tools/bench/model.py --models paper_rgb paper_sdv --compile --output results/bench_model.json
    python tools/bench/model.py --models paper_rgb --kinds auxiliary velocity --cost      computed, nothing runs

Further arguments are overrides of the training command, such as model.velocity.augmentation=false. TFLOP/s are
those that lediflow.models.cost counts, three forward passes for forward and backward; on a GPU they are compared
with a product of two 8192 x 8192 matrices, measured in the same process.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import NamedTuple

import torch
from common import (
    Row,
    command_line,
    machine,
    matmul_peak,
    measure,
    seconds_taken,
    table,
    write_json,
)
from subjects import KINDS, PRECISIONS, Subject, activations_dtype, built, inputs_of, model_names, subject
from torch import Tensor, nn

from lediflow.models import AuxiliaryOutput, parameter_groups
from lediflow.models.cost import cost_table

LEARNING_RATE, WEIGHT_DECAY = 1e-6, 1e-2  # small, so that weights do not diverge in repeated steps


class Pass(NamedTuple):
    """A function to measure, and its FLOPs as a multiple of the forward pass."""

    call: Callable[[], object]
    forward_passes: int


def main(arguments: list[str] | None = None) -> None:
    chosen = options(arguments)
    subjects = [
        subject(model, kind, batch=chosen.batch, prior=chosen.prior, overrides=chosen.overrides)
        for model in chosen.models
        for kind in chosen.kinds
    ]
    if chosen.cost:
        for each in subjects:
            print_cost(each, chosen)
        return
    device = torch.device(chosen.device)
    peak = peak_of(device, chosen.precision)
    rows = [row for each in subjects for row in timed(each, chosen, device, peak)]
    print(f"{machine()}\n\n{table(rows)}")
    if chosen.output:
        print(f"\nwritten to {write_json(chosen.output, rows)}")


def options(arguments: list[str] | None) -> argparse.Namespace:
    has_gpu = torch.cuda.is_available()
    parser = command_line(__doc__)
    parser.add_argument(
        "--models",
        nargs="+",
        choices=model_names(),
        default=["paper_rgb", "paper_sdv"] if has_gpu else ["demo"],
        help="files of conf/model; on a GPU the paper's, else the demo's",
    )
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=["velocity"])
    parser.add_argument("--batch", type=int, help="images at once; paper_rgb 32, paper_sdv 64, others 4")
    parser.add_argument("--prior", choices=("gaussian", "learned"), default="gaussian", help="learned adds z")
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="bfloat16" if has_gpu else "float32",
        help="bfloat16: the weights too; autocast: float32 weights",
    )
    parser.add_argument("--route", default="auto", help="of neighborhood attention")
    parser.add_argument(
        "--compile", nargs="?", const="default", metavar="MODE", help="torch.compile the whole model"
    )
    parser.add_argument("--recompute", action="store_true", help="activation checkpointing of every layer")
    parser.add_argument("--optimizer", action="store_true", help="also time a step with fused AdamW")
    parser.add_argument("--seconds", type=float, default=3.0, help="measuring time per number")
    parser.add_argument("--device", default="cuda" if has_gpu else "cpu")
    parser.add_argument("--output", help="JSON file for the rows and their provenance")
    parser.add_argument(
        "--cost", action="store_true", help="print the computed cost of the models instead of running them"
    )
    chosen, overrides = parser.parse_known_args(arguments)
    if unknown := [override for override in overrides if "=" not in override]:
        parser.error(f"unknown: {' '.join(unknown)}; overrides look like key=value")
    chosen.overrides = overrides
    return chosen


def print_cost(subject: Subject, chosen: argparse.Namespace) -> None:
    cost = subject.cost(activations_dtype(chosen.precision), chosen.recompute)
    print(f"{subject.model} {subject.kind}: one image of {subject.size}x{subject.size}, {chosen.precision}")
    print(f"{cost_table(cost)}\ntraining: {cost.training_flops / 1e9:.1f} GFLOP an image\n")


def timed(
    subject: Subject, chosen: argparse.Namespace, device: torch.device, peak: float | None
) -> list[Row]:
    """A row for each pass over one model."""
    module = built(
        subject,
        device=device,
        precision=chosen.precision,
        route=chosen.route,
        recompute=chosen.recompute,
        mode=chosen.compile,
    )
    flops = subject.cost(activations_dtype(chosen.precision), chosen.recompute).total.flops * subject.batch
    how = {
        "model": f"{subject.model} {subject.kind}",
        "batch": subject.batch,
        "precision": chosen.precision,
        "route": chosen.route,
        "compile": chosen.compile or "no",
        "recompute": chosen.recompute,
    }
    rows = []
    for name, timed_pass in passes(subject, module, chosen, device).items():
        numbers = timing(timed_pass, flops, subject.batch, chosen.seconds, device, peak)
        rows.append({**how, "pass": name, **numbers})
    return rows


def passes(
    subject: Subject, module: nn.Module, chosen: argparse.Namespace, device: torch.device
) -> dict[str, Pass]:
    """The passes to measure, by name."""
    inputs = inputs_of(subject, device, chosen.precision)

    def forward() -> None:
        with torch.no_grad():
            module(*inputs)

    def forward_and_backward() -> None:
        module.zero_grad(set_to_none=True)
        images = image_outputs(module(*inputs))
        torch.autograd.backward(images, [torch.ones_like(image) for image in images])

    found = {"forward": Pass(forward, 1), "forward + backward": Pass(forward_and_backward, 3)}
    if chosen.optimizer:
        groups = parameter_groups(module, LEARNING_RATE, WEIGHT_DECAY)
        optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.99), fused=True)

        def step() -> None:
            forward_and_backward()
            optimizer.step()

        found["with AdamW"] = Pass(step, 3)
    return found


def image_outputs(output: Tensor | AuxiliaryOutput) -> list[Tensor]:
    """The outputs that a loss uses: the velocity, or all means and log variances of the auxiliary model."""
    if isinstance(output, Tensor):
        return [output]
    return [*output.posterior, *output.prior]


def timing(
    timed_pass: Pass, flops: int, batch: int, seconds: float, device: torch.device, peak: float | None
) -> Row:
    """The numbers of one row; the first call includes compilation."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    first = seconds_taken(timed_pass.call, device)
    milliseconds = measure(timed_pass.call, device=device, seconds=seconds)
    achieved = timed_pass.forward_passes * flops / (milliseconds / 1000)
    return {
        "ms": milliseconds,
        "ms/img": milliseconds / batch,
        "img/s": 1000 * batch / milliseconds,
        "TFLOP/s": achieved / 1e12,
        "% of peak": None if peak is None else 100 * achieved / peak,
        "GiB": torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else None,
        "first call, s": first,
    }


def peak_of(device: torch.device, precision: str) -> float | None:
    """FLOP/s of a large matrix product; a CPU would take minutes for it."""
    return matmul_peak(device, activations_dtype(precision)) if device.type == "cuda" else None


if __name__ == "__main__":
    main()
