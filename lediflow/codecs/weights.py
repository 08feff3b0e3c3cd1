"""Weights of neural codecs: found in a local folder or on the Hugging Face hub, read, and hashed.

This is the only module that imports huggingface_hub. A folder that exists is never looked up on the hub. A hub name is
`owner/name` or `owner/name/subfolder`; downloads are kept in the hub's cache, and with HF_HUB_OFFLINE=1 only that cache
is used.
"""

import hashlib
import pickle
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from lediflow.disk import sha256_of
from lediflow.errors import UserError

HUB_NAME = re.compile(r"(?P<repository>[\w][\w.-]*/[\w][\w.-]*)(?P<subfolder>(/[\w][\w.-]*)*)")


def first_of(folder: Path, names: Sequence[str]) -> Path | None:
    """The first of these files that exists in the folder; None if none does."""
    return next((folder / name for name in names if (folder / name).is_file()), None)


def required_file(folder: Path, names: Sequence[str], codec: str) -> Path:
    """The first of these files that exists in the codec's folder; UserError if none does."""
    if path := first_of(folder, names):
        return path
    found = ", ".join(sorted(item.name for item in folder.glob("*"))[:5]) or "nothing"
    raise UserError(
        f"codec={codec} needs {' or '.join(names)} in codec.path={folder} (found {found}); give its folder"
    )


def read_weights(path: Path, codec: str) -> dict[str, Tensor]:
    """Tensors by name from a .safetensors file or from one that torch.save wrote; no code in the file is run."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise UserError(
            f"codec={codec}: {path} is damaged or not a file of weights ({str(error).splitlines()[0]}); "
            "download it again"
        ) from error


def reduced_side(image_size: int, reduction: int, codec: str) -> int:
    """Side of the latents of an image; UserError if `image_size` is not a multiple of `reduction`."""
    if image_size % reduction:
        raise UserError(
            f"codec={codec} makes images {reduction} times smaller and {image_size} is not a multiple of it; "
            f"prepare the images at size={image_size // reduction * reduction or reduction}"
        )
    return image_size // reduction


def hash_of(files: list[Path]) -> str:
    """SHA-256 over the contents of the files, in hexadecimal."""
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(bytes.fromhex(sha256_of(path)))
    return digest.hexdigest()


def placed(network: Any, device: torch.device | str) -> Any:
    """Move a convolutional network to a device, with channels last on a GPU, where that is faster."""
    is_gpu = torch.device(device).type == "cuda"
    return network.to(device, memory_format=torch.channels_last if is_gpu else torch.contiguous_format)


def in_colour(
    images: Float[Tensor, "batch channels height width"],
) -> Float[Tensor, "batch 3 height width"]:
    """Images with three channels; the channel of grey images is repeated."""
    return images.expand(-1, 3, -1, -1)


def weights_folder(where: str, files: Sequence[str], codec: str) -> Path:
    """The local folder `where`; a hub name is downloaded first, limited to those of `files` that exist there."""
    folder = Path(where).expanduser()
    if folder.exists():
        return folder
    name = HUB_NAME.fullmatch(where)
    if name is None:
        raise UserError(
            f"codec={codec}: codec.path={where} does not exist; "
            "give the folder of the weights, or a name on the hub such as owner/name or owner/name/subfolder"
        )
    prefix = name["subfolder"].removeprefix("/")
    wanted = [f"{prefix}/{file}" if prefix else file for file in files]
    return _download(name["repository"], wanted, where, codec) / prefix


def _download(repository: str, files: list[str], where: str, codec: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repository, allow_patterns=files))
    except (OSError, ValueError) as error:  # errors of the hub, the network and the disk
        advice = _advice(error)
        raise UserError(
            f"codec={codec}: codec.path={where} is not a local folder, and the hub's {repository} cannot "
            f"be downloaded: {advice}"
        ) from error


def _advice(error: Exception) -> str:
    """What went wrong with a download, and what to do about it."""
    from huggingface_hub.errors import (
        GatedRepoError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
    )

    match error:
        case GatedRepoError():
            return "its owner asks for consent; accept the terms on its page, then `hf auth login` or set HF_TOKEN"
        case RepositoryNotFoundError():
            return "there is none of that name (or it is private: `hf auth login`); check the spelling"
        case LocalEntryNotFoundError() if isinstance(error.__cause__, OfflineModeIsEnabled):
            return "HF_HUB_OFFLINE is set and it is not in the cache; unset it once, or copy the folder here"
        case LocalEntryNotFoundError():
            return (
                "it is not in the cache and the hub does not answer; check the network (HF_ENDPOINT, proxies), "
                "or download it elsewhere and give its folder"
            )
    return f"{str(error).splitlines()[0]}; check the network and the disk, or give a folder"
