"""Measure the routes of neighborhood attention on this machine's device: forward, and forward and backward.

    python tools/bench/attention.py                                                shapes of the models' levels
    python tools/bench/attention.py --shapes 8x64x64x4x64 --kernel 9 --output results/bench_attention.json

A shape is batch x height x width x heads x head_dim. "full" is PyTorch's attention over the whole grid, without a
window, for comparison. q, k and v are views of one tensor, as in a model.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial

import torch
from common import Row, command_line, machine, measure, table, write_json
from torch import Tensor

from lediflow.nn.attention import global_attention
from lediflow.nn.neighborhood import ROUTES, Problem

SHAPES = {
    "cuda": ["32x64x64x4x64", "32x32x32x8x64", "64x32x32x8x64", "64x32x32x16x16", "64x16x16x32x16"],
    "cpu": ["4x16x16x4x32", "4x16x16x2x32", "1x32x32x8x16"],
}
DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
Attention = Callable[[Tensor, Tensor, Tensor], Tensor]


def main(arguments: list[str] | None = None) -> None:
    chosen = options(arguments)
    device = torch.device(chosen.device)
    rows = [
        row
        for shape in chosen.shapes or SHAPES[device.type]
        for name in chosen.routes
        for row in timed(shape, name, chosen, device)
    ]
    print(f"{machine()}\nkernel {chosen.kernel}, {chosen.dtype}; milliseconds\n\n{table(by_shape(rows))}")
    if chosen.output:
        print(f"\nwritten to {write_json(chosen.output, rows)}")


def options(arguments: list[str] | None) -> argparse.Namespace:
    has_gpu = torch.cuda.is_available()
    parser = command_line(__doc__)
    parser.add_argument(
        "--shapes", nargs="+", metavar="BxHxWxNxD", help="default: shapes of the models' levels"
    )
    names = [*(name for name in ROUTES if name != "dense"), "full"]
    parser.add_argument("--routes", nargs="+", choices=[*ROUTES, "full"], default=names)
    parser.add_argument("--kernel", type=int, default=7)
    parser.add_argument("--dtype", choices=DTYPES, default="bfloat16" if has_gpu else "float32")
    parser.add_argument("--seconds", type=float, default=0.3, help="measuring time per number")
    parser.add_argument("--device", default="cuda" if has_gpu else "cpu")
    parser.add_argument("--output", help="JSON file for the rows and their provenance")
    return parser.parse_args(arguments)


def timed(shape: str, name: str, chosen: argparse.Namespace, device: torch.device) -> list[Row]:
    """A row for each direction that the route supports."""
    batch, height, width, heads, head_dim = map(int, shape.split("x"))
    dtype = DTYPES[chosen.dtype]
    rows = []
    for is_training in (False, True):
        problem = Problem(height, width, heads, head_dim, chosen.kernel, dtype, device, is_training)
        if name != "full" and ROUTES[name].missing(problem) is not None:
            continue
        call = one_call(attention_by(name, problem), drawn(batch, problem), is_training)
        direction = "forward + backward" if is_training else "forward"
        milliseconds = measure(call, device=device, seconds=chosen.seconds)
        rows.append({"shape": shape, "route": name, "pass": direction, "ms": milliseconds})
    return rows


def attention_by(name: str, problem: Problem) -> Attention:
    """The route as a function of q, k and v."""
    if name == "full":
        return global_attention
    return partial(ROUTES[name].attention, kernel_size=problem.kernel_size, scale=1.0)


def drawn(batch: int, problem: Problem) -> Tensor:
    """Random projections of `batch` images: q, k and v concatenated for each token."""
    torch.manual_seed(0)
    shape = (batch, problem.height, problem.width, 3, problem.num_heads, problem.head_dim)
    return torch.randn(shape, device=problem.device).to(problem.dtype)


def one_call(attention: Attention, projections: Tensor, is_training: bool) -> Callable[[], None]:
    """The function to measure: the forward pass, and in training the gradients of q, k and v."""
    q, k, v = (x.detach().requires_grad_(is_training) for x in projections.unbind(3))
    cotangent = torch.randn_like(q, memory_format=torch.contiguous_format)

    def call() -> None:
        with torch.set_grad_enabled(is_training):
            mixed = attention(q, k, v)
        if is_training:
            torch.autograd.grad(mixed, (q, k, v), cotangent)

    return call


def by_shape(rows: list[Row]) -> list[Row]:
    """One row for each shape and direction, one column for each route."""
    lines: dict[tuple[str, str], Row] = {}
    for row in rows:
        line = lines.setdefault((row["shape"], row["pass"]), {"shape": row["shape"], "pass": row["pass"]})
        line[row["route"]] = row["ms"]
    return list(lines.values())


if __name__ == "__main__":
    main()
