"""Forward and backward pass of a micro-batch, recorded as a CUDA graph where that is possible.

On a GPU the passes of a small model take less time than Python needs to launch them. All micro-batches of a run have
the same shapes, and every random draw is a function of the sample ids, so the same kernels are correct for each of
them: the first steps run directly, then one is recorded, and each further pass copies its batch into the recording's
inputs and repeats it. The optimizer's step is not part of it.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from lediflow.engine.protocol import Engine

log = logging.getLogger(__name__)

# optimizer steps that run directly: the first one compiles, and libraries allocate what they need
WARM_UP = 3

B = TypeVar("B")  # a dataclass whose tensors are the inputs of a pass, and whose other fields do not matter
# a named tuple with the mean loss of a micro-batch, `loss`, with the loss of each of its samples, `per_sample`, and
# with what else is known about it
L = TypeVar("L", bound=tuple[Any, ...])
T = TypeVar("T")


class Passes(Generic[B, L]):
    """`passes(batch)` is the loss of a micro-batch, whose gradient has been added to the weights' gradients."""

    def __init__(self, engine: Engine, loss_of: Callable[[B], L]) -> None:
        self.engine, self.loss_of = engine, loss_of
        self.done = 0
        self.recorded: Callable[[B], L] | None = None
        self.is_recording_wanted = bool(engine.config.cuda_graphs)

    def __call__(self, batch: B) -> L:
        is_first_of_step = self.done % self.engine.accumulation == 0
        if self.is_recording_wanted and is_first_of_step and self.done >= WARM_UP * self.engine.accumulation:
            self.is_recording_wanted = False
            self._record(batch)
        self.done += 1
        return self.recorded(batch) if self.recorded else self.directly(batch)

    def directly(self, batch: B) -> L:
        """The passes without a recording."""
        result: Any = self.loss_of(batch)
        self.engine.backward(result.loss)
        found: L = result._replace(loss=result.loss.detach())
        return found

    def _record(self, batch: B) -> None:
        """Record the passes; a run that cannot be recorded goes on without."""
        inputs = with_copies(batch)
        try:
            replay = self.engine.recorded(lambda: self.directly(inputs))
        except RuntimeError as error:
            self.engine.forget_recording()
            log.warning(
                "the passes of this run cannot be recorded as a CUDA graph (%s); training goes on without, which "
                "engine.cuda_graphs=false does from the beginning",
                str(error).partition("\n")[0],
            )
            return

        def repeated(batch: B) -> L:
            overwrite(inputs, batch)
            result: Any = replay()
            # the next pass overwrites all results; this one is read if the step turns out to be bad
            found: L = result._replace(per_sample=result.per_sample.clone())
            return found

        self.recorded = repeated


class Recording(Generic[T]):
    """The work of `function` on the GPU, recorded once and repeated by every call.

    `function` takes its inputs from tensors that are written before each call, and leaves its results in tensors that
    the next call overwrites; its own Python code runs only here. RuntimeError where it does what cannot be recorded,
    such as waiting for the device. Nothing is computed before the first call.
    """

    def __init__(self, function: Callable[[], T]) -> None:
        self.graph = torch.cuda.CUDAGraph()
        # thread_local: loading threads go on copying batches to the GPU while this thread records
        with torch.cuda.graph(self.graph, capture_error_mode="thread_local"):
            self.results = function()

    def __call__(self) -> T:
        self.graph.replay()
        return self.results


def tensors_of(batch: Any) -> dict[str, Tensor]:
    """The tensors of a dataclass, by name."""
    values = {field.name: getattr(batch, field.name) for field in dataclasses.fields(batch)}
    return {name: value for name, value in values.items() if isinstance(value, Tensor)}


def with_copies(batch: B) -> B:
    """The batch with copies of its tensors."""
    copies: dict[str, Any] = {name: tensor.clone() for name, tensor in tensors_of(batch).items()}
    return dataclasses.replace(batch, **copies)  # type: ignore[type-var]


def overwrite(inputs: Any, batch: Any) -> None:
    """Copy the tensors of a batch into others of the same names and shapes; RuntimeError if they differ."""
    given, kept = tensors_of(batch), tensors_of(inputs)
    if shapes_text(given) != shapes_text(kept):
        raise RuntimeError(
            f"a batch with {shapes_text(given)} came after the passes were recorded for {shapes_text(kept)}"
        )
    for name, tensor in given.items():
        kept[name].copy_(tensor)


def shapes_text(tensors: dict[str, Tensor]) -> str:
    return ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in tensors.items())
