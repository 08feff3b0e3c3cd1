"""The runtime of a pipeline, and what `auto` means."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import nn

from lediflow.errors import UserError
from lediflow.nn.low_precision import SMALLEST_WIDTH, multiplies_in_float8
from lediflow.records import one_line
from lediflow.sampling.runtime.copies import WorkingCopy
from lediflow.sampling.runtime.graphs import Inputs, Recordings
from lediflow.sampling.runtime.networks import Networks, eager_networks

log = logging.getLogger(__name__)

# compiling takes a minute or two, and saves about a millisecond an image in large batches
PAYS_FROM_IMAGES = 50_000
Models = dict[str, nn.Module]
Result = TypeVar("Result")


def choose_runtime(requested: str, device: torch.device, images: int, precision: str = "float32") -> str:
    """`auto`: compiled on GPUs for many images and for float8, else eager."""
    if requested != "auto":
        return requested
    if precision == "float8":
        return "compiled"
    return "compiled" if device.type == "cuda" and images >= PAYS_FROM_IMAGES else "eager"


def check_float8(runtime: str, device: torch.device) -> None:
    """UserError for a runtime or a device that cannot compute in 8 bits."""
    if runtime == "eager":
        raise UserError(
            "precision=float8 with runtime=eager, which runs the models themselves: 8-bit weights are copies; use "
            "runtime=compiled, or precision=bfloat16"
        )
    if not multiplies_in_float8(device):
        raise UserError(
            "precision=float8 needs a GPU with products of 8-bit numbers (Ada, Hopper or newer), not "
            f"{torch.cuda.get_device_name(device)}; use precision=bfloat16"
        )


class Runtime:
    """The networks of a pipeline, prepared to be run in one way; `name` is the way that they are run now.

    `is_required`: a network that cannot be compiled is a UserError, else one warning, and all are eager from then on.
    """

    def __init__(
        self, name: str, models: Models, precision: str, device: torch.device, *, is_required: bool = True
    ) -> None:
        if precision == "float8":
            check_float8(name, device)
        self.asked, self.models, self.precision = name, models, precision
        self.is_required = is_required or precision == "float8"  # eager networks are of another precision
        self.lock = threading.RLock()
        self._run_eagerly()
        if name == "eager":
            return
        try:
            self._prepare(name, device)
        except (OSError, ImportError) as error:  # of PyTorch's compiler, e.g. because its cache is read-only
            self._report(error)

    def _run_eagerly(self) -> None:
        self.name = "eager"
        self.copies: dict[str, WorkingCopy] = {}
        self.recordings: Recordings | None = None
        self.networks = eager_networks(self.models, self.precision)

    def _prepare(self, name: str, device: torch.device) -> None:
        copies = {model: WorkingCopy(module, self.precision) for model, module in self.models.items()}
        if self.precision == "float8" and not any(copied.layers_in_float8 for copied in copies.values()):
            raise UserError(
                f"precision=float8 rounds projections of {SMALLEST_WIDTH} channels or more, and these models "
                f"({', '.join(copies)}) have none; use precision=bfloat16"
            )
        self.networks = self._fast_networks(name, copies)
        self.name, self.copies = name, copies
        self.recordings = Recordings() if device.type == "cuda" else None

    def _fast_networks(self, name: str, copies: dict[str, WorkingCopy]) -> Networks:
        # imported here, because PyTorch's compiler takes a second to import
        if name == "exported":
            from lediflow.sampling.runtime.packages import packaged_networks

            return packaged_networks(copies, self.precision, self._report)
        from lediflow.sampling.runtime.compiled import compiled_networks

        return compiled_networks(copies, self._report)

    @contextmanager
    def ready(self) -> Iterator[None]:
        """Around every use of the networks: one thread at a time, with the models' present weights."""
        if self.name == "eager":
            yield
            return
        with self.lock:
            self.refresh()
            yield

    def refresh(self, force: bool = False) -> None:
        """Bring the copies up to date; `force` also after writes that PyTorch does not count (`.data`)."""
        for copied in self.copies.values():
            copied.refresh(force)

    def run(self, kind: Hashable | None, chain: Callable[[Inputs], Result], inputs: Inputs) -> Result:
        """The chain's result, by a CUDA graph where there is one for its kind; None: it cannot be recorded."""
        with self.ready():
            if self.recordings is None or kind is None:
                return chain(inputs)
            found: Result = self.recordings.run((kind, len(inputs.ids)), chain, inputs)
            return found

    def _report(self, error: Exception) -> None:
        cause = getattr(error, "inner_exception", error)  # PyTorch's own message is advice for its developers
        reason = f"{type(cause).__name__}: {one_line(cause)}"
        if self.is_required:
            raise UserError(
                f"runtime={self.asked}: a network could not be compiled ({reason}); mend that, or use runtime=eager"
            ) from error
        log.warning("runtime %s failed (%s); sampling eagerly", self.asked, reason)
        self._run_eagerly()
