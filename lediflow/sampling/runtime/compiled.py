"""Networks compiled by torch.compile, one graph each, and what happens where compiling fails.

The first batch size is compiled alone, another one as a graph for any size, a single image once more: three at most,
for any number of batch sizes. PyTorch keeps what it compiled in TORCHINDUCTOR_CACHE_DIR, so that later starts take
seconds.
"""

from __future__ import annotations

import logging
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch._dynamo.exc import TorchDynamoException
from torch._inductor.exc import InductorError

from lediflow.flow.solvers import as_time
from lediflow.sampling.methods import classes_of
from lediflow.sampling.runtime.conditions import Conditions, Known
from lediflow.sampling.runtime.copies import WorkingCopy
from lediflow.sampling.runtime.networks import (
    KINDS,
    MODELS,
    ConditionedPart,
    Networks,
    Part,
    networks_of,
)

# PyTorch's default, 8 compilations per function, is less than what a process with several models needs; above the
# limit it would fail, because a graph is whole or not at all
MOST_COMPILATIONS = 256
# raised for a missing compiler, a full or read-only cache, a folder without execution rights, and the compiler's faults
COMPILE_ERRORS = (
    TorchDynamoException,
    InductorError,
    OSError,
    ImportError,
    subprocess.SubprocessError,
)

# PyTorch pads products of unaligned widths where a GPU's arithmetic is their limit. Ours are aligned, or a handful of
# channels wide. To decide it, it would bind each graph to the batch sizes on one side of that limit
OPTIONS = {"shape_padding": False}

# PyTorch logs an error of its cache with a traceback, and raises it besides
CACHE_LOG = logging.getLogger("torch._inductor.codecache")
Report = Callable[[Exception], None]  # raises, or returns to continue eagerly


class Guarded:
    """A fast form of a part; if it fails to compile, `report` decides whether the eager form serves from then on."""

    def __init__(self, fast: Callable[..., Any], eager: Callable[..., Any], report: Report) -> None:
        self.fast: Callable[..., Any] | None = fast
        self.eager, self.report = eager, report

    def __call__(self, *inputs: Any) -> Any:
        if self.fast is not None:
            try:
                with without_tracebacks():
                    return self.fast(*inputs)
            except COMPILE_ERRORS as error:
                self.report(error)
                self.fast = None
        return self.eager(*inputs)


class Timed(Guarded):
    """A compiled velocity that can also be evaluated at times that are known before, without classes."""

    def __init__(
        self,
        part: Part,
        at: Callable[..., Tensor],
        conditions: Conditions,
        report: Report,
    ) -> None:
        super().__init__(as_graph(part), part, report)
        self.inputs, self.fast_at, self.conditions = part.inputs, at, conditions

    def prepare(self, times: Sequence[float], z: Tensor | None = None) -> Known:
        """What `at` needs at these times, for samples with these latents."""
        return self.conditions.at(times, z)

    def at(self, x: Tensor, times: Sequence[float], known: Known, z: Tensor | None = None) -> Tensor:
        """The velocity at a time, or the mean velocity between two."""
        if self.fast is not None:
            conditions = [known[time] for time in times]
            inputs = x, conditions[0], conditions[1] if len(conditions) == 2 else None, z
            try:
                with without_tracebacks():
                    return self.fast_at(*inputs)
            except COMPILE_ERRORS as error:
                self.report(error)
                self.fast = None
        found: Tensor = self(*self.inputs(x, [as_time(time, x) for time in times], z))
        return found


@contextmanager
def without_tracebacks() -> Iterator[None]:
    """Without warnings of PyTorch's cache, whose errors are reported when they are raised."""
    before, CACHE_LOG.disabled = CACHE_LOG.disabled, True
    try:
        yield
    finally:
        CACHE_LOG.disabled = before


def compiled_networks(copies: dict[str, WorkingCopy], report: Report) -> Networks:
    """Each part compiled at its first call."""
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, MOST_COMPILATIONS)

    def compiled(name: str, module: nn.Module) -> Guarded:
        part = KINDS[name](module)
        if name == "prior" or classes_of(module):  # classes are part of the condition
            return Guarded(as_graph(part), part, report)
        conditioned = ConditionedPart(module)
        compute = Guarded(as_graph(conditioned, conditioned.conditions), conditioned.conditions, report)
        return Timed(
            part, as_graph(conditioned), Conditions(conditioned, copies[MODELS[name]], compute), report
        )

    return networks_of({name: copied.module for name, copied in copies.items()}, compiled)


def as_graph(part: Part, method: Callable[..., Any] | None = None) -> Callable[..., Any]:
    """A part, or a method of it, compiled as one graph at its first call."""
    graphs = torch.compile(method or part, fullgraph=True, options=dict(OPTIONS))

    def call(first: Tensor, *inputs: Tensor | None) -> Any:
        return graphs(own(first), *map(own, inputs))

    return call


def own(tensor: Tensor | None) -> Tensor | None:
    """The tensor, copied if it is a view of another: the compiler makes graphs of their own for views."""
    return tensor.clone() if tensor is not None and tensor._is_view() else tensor
