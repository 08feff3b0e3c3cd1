"""Decoders of codecs with random weights: latents of 4 x 32 x 32, by default, to images of eight times the side."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from encode import SD2
from interleaved import Case
from torch import Tensor, nn

from lediflow.codecs import PRECISIONS, Codec
from lediflow.codecs.sd_vae import SDVAE
from lediflow.codecs.taesd import CHANNELS, TAESD, decoder, encoder
from lediflow.compat import fix_torchvision

LAYOUTS = {"channels last": torch.channels_last, "contiguous": torch.contiguous_format}
# graph: compiled, and replayed as a CUDA graph
RUNTIMES = ("eager", "compiled", "graph")


def random_sd2_vae(place: Callable[[nn.Module], Any]) -> Codec:
    """Stable Diffusion 2's architecture; ImportError without diffusers."""
    fix_torchvision()
    from diffusers import AutoencoderKL

    autoencoder: Any = AutoencoderKL(**SD2)  # diffusers' decorator hides the type of the class
    return SDVAE(place(autoencoder), "random")


def random_taesd(place: Callable[[nn.Module], Any]) -> Codec:
    return TAESD(place(encoder()), place(decoder()), "random")


BUILDERS = {"sd2_vae": random_sd2_vae, "taesd": random_taesd}


def random_codec(name: str, precision: str, layout: str, device: torch.device) -> Codec:
    """The codec with weights that are always the same."""
    torch.manual_seed(0)

    def place(network: Any) -> Any:  # nn.Module.to has no type for memory_format alone
        return network.to(device, PRECISIONS[precision]).to(memory_format=LAYOUTS[layout])

    return BUILDERS[name](place)


def decoding_cases(
    name: str, batch: int, side: int, precisions: Sequence[str], runtimes: Sequence[str], device: torch.device
) -> Iterator[Case]:
    """A case for each precision, layout and runtime; graphs only on a GPU."""
    latents = torch.randn(batch, CHANNELS, side, side, device=device)
    pool = torch.cuda.graph_pool_handle() if device.type == "cuda" else None
    for precision, layout in itertools.product(precisions, LAYOUTS):
        codec = random_codec(name, precision, layout, device)
        for runtime in runtimes:
            if runtime == "graph" and device.type != "cuda":
                continue
            about = {"part": "codec", "codec": name, "batch": batch, "side": 8 * side}
            about |= {"runtime": runtime, "precision": precision, "layout": layout}
            yield Case(about, batch, decoding(codec, runtime, latents, pool), device)


@torch.no_grad()
def decoding(codec: Codec, runtime: str, latents: Tensor, pool: Any) -> Callable[[], object]:
    """Decode these latents, by one of RUNTIMES; graphs share the memory of `pool`."""
    if runtime == "eager":
        return lambda: codec.decode(latents)
    compiled = torch.compile(codec.decode, dynamic=False)
    if runtime == "compiled":
        return lambda: compiled(latents)
    compiled(latents)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=pool):
        images = compiled(latents)

    def replay() -> Tensor:
        graph.replay()
        return images

    return replay
