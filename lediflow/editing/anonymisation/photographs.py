"""A photograph of any size as bytes in the models' colours, or the reason why it is passed over."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from lediflow.data.photograph import PILLOW_MODES, decoded_photograph
from lediflow.data.pixels import UnusableImageError, opaque_srgb
from lediflow.editing.anonymisation.faces import Pixels
from lediflow.editing.photographs import MODES, is_coloured
from lediflow.errors import UserError

# what became of a photograph, in edit.json
WRITTEN, UNREADABLE, COLOURED, MASK, NO_PERSON, NO_FACE = (
    "written",
    "unreadable",
    "coloured",
    "mask",
    "no person",
    "no face",
)


class PassedOverError(Exception):
    """A photograph gets no result: `reason` is one of the words above, for edit.json; the message is for the user.

    Messages may name files and persons, so they are shown and not written.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@contextmanager
def passed_over(reason: str) -> Iterator[None]:
    """Turn errors about one photograph into a PassedOverError."""
    try:
        yield
    except (UnusableImageError, UserError) as error:
        raise PassedOverError(reason, str(error)) from error


def photograph_pixels(content: bytes, channels: int) -> Pixels:
    """Upright pixels in sRGB, 8 bits, transparency on white, with the models' channels. Metadata is left behind."""
    with passed_over(UNREADABLE):
        image = opaque_srgb(decoded_photograph(content).image)
    if channels == 1 and is_coloured(image):
        raise PassedOverError(
            COLOURED, "a colour picture, and these models make grey ones; convert it to grey first"
        )
    array = np.array(image.convert(PILLOW_MODES[MODES[channels]]))
    return array if array.ndim == 3 else array[..., None]
