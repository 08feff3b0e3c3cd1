"""What neural codecs share: finding and reading their weights, a hash that pins them, the size and colour they need."""

import hashlib
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from lediflow.errors import UserError


def first_of(folder: Path, names: Sequence[str]) -> Path | None:
    """The first of these files that the folder has."""
    return next((folder / name for name in names if (folder / name).is_file()), None)


def required_file(folder: Path, names: Sequence[str], codec: str) -> Path:
    """The first of these files that the codec's folder has, or what to do without any."""
    if path := first_of(folder, names):
        return path
    found = ", ".join(sorted(item.name for item in folder.glob("*"))[:5]) or "nothing"
    raise UserError(
        f"codec={codec} needs {' or '.join(names)} in codec.path={folder} (found {found}); give its folder"
    )


def read_weights(path: Path, codec: str) -> dict[str, Tensor]:
    """Tensors by name, of a .safetensors file or of one that torch.save wrote; no code of the file is run."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise UserError(
            f"codec={codec}: {path} is damaged or no file of weights ({str(error).splitlines()[0]}); download it again"
        ) from error


def reduced_side(image_size: int, reduction: int, codec: str) -> int:
    """Side of the latents of an image."""
    if image_size % reduction:
        raise UserError(
            f"codec={codec} makes images {reduction} times smaller and {image_size} is not a multiple of it; "
            f"prepare the images at size={image_size // reduction * reduction or reduction}"
        )
    return image_size // reduction


def hash_of(files: list[Path]) -> str:
    """Changes with the content of any of the files."""
    digest = hashlib.sha256()
    for path in sorted(files):
        with path.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def placed(network: Any, device: torch.device | str) -> Any:
    """A network of convolutions where it works; GPUs want its channels last."""
    is_gpu = torch.device(device).type == "cuda"
    return network.to(device, memory_format=torch.channels_last if is_gpu else torch.contiguous_format)


def in_colour(
    images: Float[Tensor, "batch channels height width"],
) -> Float[Tensor, "batch 3 height width"]:
    """Grey images get their channel three times."""
    return images.expand(-1, 3, -1, -1)
