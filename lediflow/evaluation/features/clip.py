"""Image embeddings of CLIP models; CMMD is defined on those of ViT-L/14@336. The only module that imports open_clip.

Preprocessing as in CMMD's reference: a square image to the model's size by Pillow's bicubic filter, nothing cropped,
then CLIP's own mean and standard deviation. OpenAI's weights want the quick GELU; loaded from a file, open_clip applies
it only under the "-quickgelu" name.
Source: Jayasumana et al. 2023, arXiv:2401.09603; Radford et al. 2021, arXiv:2103.00020.
"""

from __future__ import annotations

import logging
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lediflow.compat import fix_torchvision
from lediflow.errors import UserError
from lediflow.evaluation.features.inputs import (
    check_square,
    find_weights,
    read_state,
    resize_bytes,
    rgb_pixels,
    standardise,
    weights_record,
)

NAME = "clip-vit-l14-336"
ARCHITECTURE = "ViT-L-14-336-quickgelu"
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # of OpenAI's models
PREFIX = "open_clip:"  # before an architecture of open_clip
HOME = "https://openaipublic.azureedge.net/clip/models/{}/ViT-L-14-336px.pt"
NO_WEIGHTS = ("input_resolution", "context_length", "vocab_size")  # in OpenAI's archives, but not weights
SHA256 = "3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02"  # of OpenAI's file


class ClipFeatures:
    """Embeddings of a CLIP model whose weights are in a local file: open_clip's, or OpenAI's own archive."""

    def __init__(
        self,
        path: str | None,
        *,
        name: str = NAME,
        architecture: str = ARCHITECTURE,
        device: torch.device | str = "cpu",
    ):
        self.name = name
        self.device = torch.device(device)
        check_architecture(architecture)
        weights = find_clip(path, architecture)
        self.network = load_network(architecture, weights).to(self.device).float().eval()
        self.size = side_of(self.network.visual.image_size)
        self.mean, self.std = self.network.visual.image_mean, self.network.visual.image_std
        self.dim: int = self(torch.zeros(1, 3, self.size, self.size)).shape[1]
        how = f"Pillow's bicubic {self.size}; mean {self.mean}, std {self.std}"
        self.record = weights_record(name, weights, how, self.dim)

    @torch.no_grad()
    def __call__(self, images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch dim"]:
        return self.network.encode_image(self.preprocess(images.to(self.device))).float()

    def preprocess(
        self, images: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch 3 size size"]:
        return preprocess(images, self.size, self.mean, self.std)


def preprocess(
    images: Float[Tensor, "batch channels height width"],
    size: int,
    mean: tuple[float, ...] = MEAN,
    std: tuple[float, ...] = STD,
) -> Float[Tensor, "batch 3 size size"]:
    """Square images in [-1, 1], resized and normalised for the model."""
    check_square(images)
    return standardise(resize_bytes(rgb_pixels(images), size) / 255, mean, std)


def side_of(size: int | tuple[int, int]) -> int:
    """Side of the images that a model takes; open_clip states one number or two."""
    sides = {size} if isinstance(size, int) else set(size)
    if len(sides) > 1:
        raise UserError(f"this model takes images of {size}; only models of square images serve here")
    return sides.pop()


def find_clip(path: str | None, architecture: str) -> Path:
    """The weights file; UserError with how to get it if there is none."""
    if architecture == ARCHITECTURE:
        how = f"{HOME.format(SHA256)} is OpenAI's file"
    else:
        plain = architecture.removesuffix("-quickgelu")
        how = (
            f"`python -c \"import open_clip, torch; print(open_clip.list_pretrained_tags_by_model('{plain}')); "
            f"torch.save(open_clip.create_model('{architecture}', pretrained=TAG).state_dict(), '{architecture}.pt')\"`"
        )
    name = f"{architecture.replace('/', '-')}.pt"
    return find_weights(path, name, f"CLIP features need weights of {architecture}", how)


def check_architecture(architecture: str) -> None:
    """UserError for an architecture that open_clip does not have."""
    fix_torchvision()
    import open_clip

    if open_clip.get_model_config(architecture) is None:
        near = get_close_matches(architecture, open_clip.list_models(), n=5, cutoff=0.4)
        known = ", ".join(near) or "see open_clip.list_models()"
        raise UserError(f"open_clip has no architecture {architecture!r}; near it: {known}")


def load_network(architecture: str, weights: Path) -> Any:
    """The model with the weights of the file, which must have exactly the model's tensors."""
    import open_clip

    with quietly():  # it warns of random weights, which are replaced right away
        network = open_clip.create_model(architecture, pretrained=None)
    try:
        network.load_state_dict(read_weights(weights))
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        first = str(error).splitlines()[:2]
        raise UserError(
            f"{weights} does not hold the weights of {architecture}: {' '.join(map(str.strip, first))}; give another "
            "file, or name its architecture: features.name=open_clip:ARCHITECTURE"
        ) from error
    return network


@contextmanager
def quietly() -> Iterator[None]:
    """Suppress warnings in the log."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors by name, from safetensors, a state dict of torch, or a TorchScript archive such as OpenAI's."""
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except SafetensorError as error:
            raise ValueError(f"safetensors cannot read it: {error}") from error
    if is_torchscript(path):
        found = torch.jit.load(path, map_location="cpu").state_dict()
        return {key: value for key, value in found.items() if key not in NO_WEIGHTS}
    return read_state(path)


def is_torchscript(path: Path) -> bool:
    """Whether a file is a TorchScript archive: a zip with code in it."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any("/code/" in name for name in archive.namelist())
