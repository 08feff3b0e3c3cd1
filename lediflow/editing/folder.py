"""The output of an editing command: numbered pictures, strips, and edit.json, which lists them with their origin.

edit.json is written first, as unfinished and with the names of all files, and last in full. A command that finds one
removes the files that it lists; other files in the folder make it refuse. Every picture carries its origin: hashes of
the models and of the input pictures, seed and settings, as JSON in the PNG's text chunk KEY or the GIF's comment. It
holds no paths. `metadata=false` leaves it out.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from PIL.GifImagePlugin import getdata, getheader
from PIL.PngImagePlugin import PngInfo

from lediflow.claims import claim_folder
from lediflow.disk import whole_or_absent, write_json
from lediflow.errors import disk_errors_explained
from lediflow.records import object_if_any
from lediflow.sampling.grids import labelled_grid
from lediflow.sampling.pictures import picture_name

RECORD, KEY = "edit.json", "lediflow"
GIF_TICK, GIF_END = 0.01, b";"  # GIFs count in hundredths of a second

Origin = dict[str, Any]
Bytes = UInt8[np.ndarray, "batch height width channels"]


@dataclass
class EditFolder:
    """Files of one edit, held in memory until `write`."""

    root: Path
    origin: Origin | None  # written into each picture; None: nothing is
    files: dict[str, bytes] = field(default_factory=dict)

    def add_numbered(
        self, arrays: Bytes, first: int = 0, *, before: int = 0, more: Origin | None = None
    ) -> list[str]:
        """Add pictures as numbered PNG files, and return their names.

        Numbers in the origin begin with `first`, those in names with `first` + `before`; `more` is added to the origin.
        """
        names = []
        for number, array in enumerate(arrays, start=first):
            names.append(picture_name(before + number))
            self.add_picture(names[-1], as_image(array), {"number": number, **(more or {})})
        return names

    def add_strip(self, name: str, arrays: Bytes, columns: Sequence[str], label: str) -> None:
        """Add one PNG file with all pictures side by side: each under its label, and one for all on the left."""
        self.add_picture(name, labelled_grid([arrays], [label], columns))

    def add_picture(self, name: str, picture: Image.Image, more: dict[str, Any] | None = None) -> None:
        """Add a PNG file."""
        origin = None if self.origin is None else {**self.origin, **(more or {})}
        self.files[name] = png_bytes(picture, origin)

    def add_animation(self, name: str, arrays: Bytes, seconds: float) -> None:
        """Add a GIF that shows each frame for `seconds` and repeats."""
        comment = "" if self.origin is None else json.dumps(self.origin, sort_keys=True)
        milliseconds = round(seconds / GIF_TICK) * 10
        self.files[name] = gif_bytes([as_image(array) for array in arrays], milliseconds, comment)

    def write(self, record: dict[str, Any]) -> None:
        """Write all files and edit.json, and remove those of an earlier edit. UserError if the folder is not ours."""
        claim_folder(self.root, "output", "lediflow.edit", lambda folder: (folder / RECORD).is_file())
        old = [name for name in object_if_any(self.root / RECORD).get("files", {}) if Path(name).name == name]
        hashes = {name: hashlib.sha256(content).hexdigest() for name, content in self.files.items()}
        listed = {**dict.fromkeys(old), **hashes}
        write_json(self.root / RECORD, {**record, "files": listed, "unfinished": True})
        with disk_errors_explained(self.root):
            for name in {*old} - {*hashes}:
                (self.root / name).unlink(missing_ok=True)
        for name, content in self.files.items():
            with whole_or_absent(self.root / name, is_flushed=False) as stream:
                stream.write(content)
        write_json(self.root / RECORD, {**record, "files": hashes})


def gif_bytes(frames: list[Image.Image], milliseconds: int, comment: str) -> bytes:
    """A repeating GIF with every frame.

    Image.save would merge equal neighbours into one frame, and fail where that one lasts longer than a GIF can say (655
    seconds); so the file is put together of its parts here.
    """
    indexed = [frame.convert("P", palette=Image.Palette.ADAPTIVE) for frame in frames]
    header, _ = getheader(indexed[0], info={"loop": 0, "duration": milliseconds, "comment": comment})
    blocks = [getdata(frame, duration=milliseconds, include_color_table=True) for frame in indexed]
    return b"".join(itertools.chain(header, *blocks)) + GIF_END


def png_bytes(picture: Image.Image, origin: Origin | None) -> bytes:
    """A PNG file with nothing but the pixels and, unless it is None, their origin."""
    content, text = BytesIO(), PngInfo()
    if origin is not None:
        text.add_text(KEY, json.dumps(origin, sort_keys=True))
    picture.save(content, "PNG", pnginfo=text)
    return content.getvalue()


def as_image(array: UInt8[np.ndarray, "height width channels"]) -> Image.Image:
    """Bytes with channels last as a picture, grey or RGB."""
    return Image.fromarray(array.squeeze(-1) if array.shape[-1] == 1 else np.ascontiguousarray(array))
