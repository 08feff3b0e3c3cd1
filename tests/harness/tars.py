"""Tars and the pictures in them, as others write them."""

import io
import tarfile

import numpy as np
from PIL import Image

RANDOM = np.random.default_rng(0)


def picture(side=16, mode="RGB", kind="png") -> bytes:
    channels = (3,) if mode == "RGB" else ()
    pixels = RANDOM.integers(0, 256, (side, side, *channels), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels, mode).save(buffer, kind)
    return buffer.getvalue()


def add(tar, name, content):
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


def tar_of(path, files):
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            add(tar, name, content)
