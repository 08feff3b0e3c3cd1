"""What neural codecs share: finding their weights, a hash that pins them, the size and colour they need."""

import hashlib
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from lediflow.errors import UserError


def required_file(folder: Path, name: str, codec: str) -> Path:
    """A file of the codec's folder, or what to do without it."""
    path = folder / name
    if not path.is_file():
        found = ", ".join(sorted(item.name for item in folder.glob("*"))[:5]) or "nothing"
        raise UserError(f"codec={codec} needs {name} in codec.path={folder} (found {found}); give its folder")
    return path


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


def in_colour(
    images: Float[Tensor, "batch channels height width"],
) -> Float[Tensor, "batch 3 height width"]:
    """Grey images get their channel three times."""
    return images.expand(-1, 3, -1, -1)
