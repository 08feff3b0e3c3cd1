"""CUDA graphs of whole chains: one launch instead of thousands, with the noise drawn inside.

A graph holds for one batch size and one group of settings. Its inputs are tensors that are written before each replay:
the numbers of the images, their classes, and the streams of the noise, so that a seed needs no graph of its own. The
first batch of a kind runs without a graph, which compiles what there is to compile; the second is recorded. Results
are copied out, since the next replay overwrites them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from lediflow.flow.noise import SampleNoise

MOST_GRAPHS = 4  # the least recently used is dropped
STREAMS = ("latent noise", "prior")


class Inputs(NamedTuple):
    """What a chain starts from."""

    ids: Tensor
    labels: Tensor | None
    noise: SampleNoise


class StreamNoise(SampleNoise):
    """Noise whose streams are tensors, to be written before each replay."""

    def __init__(self, device: torch.device) -> None:
        super().__init__(0)
        self.streams = {name: torch.zeros((), dtype=torch.int64, device=device) for name in STREAMS}

    def stream(self, name: str) -> Tensor:  # type: ignore[override]
        return self.streams[name]

    def follow(self, noise: SampleNoise) -> None:
        for name, tensor in self.streams.items():
            tensor.fill_(noise.stream(name))


class Recording:
    """A chain for one batch size and one group of settings, as a CUDA graph."""

    def __init__(self, chain: Callable[[Inputs], Any], like: Inputs, pool: Any) -> None:
        # a caller's inference mode would forbid writing to them outside of it
        with torch.inference_mode(False):
            labels = None if like.labels is None else like.labels.clone()
            self.noise = StreamNoise(like.ids.device)
            self.inputs = Inputs(like.ids.clone(), labels, self.noise)
        self.noise.follow(like.noise)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph, pool=pool):
            self.results = chain(self.inputs)

    def __call__(self, inputs: Inputs) -> Any:
        self.inputs.ids.copy_(inputs.ids)
        if self.inputs.labels is not None and inputs.labels is not None:
            self.inputs.labels.copy_(inputs.labels)
        self.noise.follow(inputs.noise)
        self.graph.replay()
        return tree_map_only(Tensor, torch.clone, self.results)


class Recordings:
    """The graphs of a pipeline by kind, in one pool of memory."""

    def __init__(self) -> None:
        self.pool = torch.cuda.graph_pool_handle()
        self.known: OrderedDict[Hashable, Recording | None] = OrderedDict()

    def run(self, kind: Hashable, chain: Callable[[Inputs], Any], inputs: Inputs) -> Any:
        """The chain's results: directly at the first time, recorded at the second, replayed from then on."""
        if kind not in self.known:
            self.known[kind] = None
            return chain(inputs)
        self.known.move_to_end(kind)
        recording = self.known[kind]
        if recording is None:
            recording = self.known[kind] = Recording(chain, inputs, self.pool)
            self._drop_oldest()
        return recording(inputs)

    def _drop_oldest(self) -> None:
        recorded = [kind for kind, recording in self.known.items() if recording is not None]
        for kind in recorded[:-MOST_GRAPHS]:
            del self.known[kind]
