"""Image files that differ from each other."""

import io

from PIL import Image


def image_file(number: int, kind: str = "PNG", side: int = 8) -> bytes:
    """An image that no other number has."""
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), (number % 256, number // 256, 99)).save(buffer, kind)
    return buffer.getvalue()
