"""HTML as nested calls: `element("p", "2 < 3", class_="lead")`. Plain strings are escaped, `Html` is not."""

import base64
import io
from html import escape
from typing import Any

import numpy as np
from PIL import Image

VOID = frozenset({"img", "meta", "link", "br"})  # elements that have no content and no closing tag


class Html(str):
    """Text that already is HTML."""

    __slots__ = ()


def element(name: str, /, *children: str, **attributes: Any) -> Html:
    """One element. A trailing underscore of an attribute is dropped, an inner one becomes a hyphen."""
    opening = f"<{name}{''.join(attribute(key, value) for key, value in attributes.items())}>"
    return Html(opening if name in VOID else f"{opening}{fragment(*children)}</{name}>")


def fragment(*children: str) -> Html:
    """Several pieces one after another."""
    return Html(
        "".join(child if isinstance(child, Html) else escape(child, quote=False) for child in children)
    )


def attribute(key: str, value: Any) -> str:
    """One attribute of an opening tag; None leaves it out."""
    return "" if value is None else f' {key.rstrip("_").replace("_", "-")}="{escape(str(value))}"'


def picture(pixels: np.ndarray, alt: str) -> Html:
    """An image element that carries its PNG inside."""
    height, width = pixels.shape[:2]
    return element("img", src=png_uri(pixels), alt=alt, width=width, height=height, loading="lazy")


def png_uri(pixels: np.ndarray) -> str:
    """The picture as a data: address; grey may have no channel axis or one of size 1."""
    if pixels.dtype != np.uint8:
        raise ValueError(
            f"picture of dtype {pixels.dtype}; pass uint8, height x width or height x width x channels"
        )
    buffer = io.BytesIO()
    flat = pixels[..., 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels
    Image.fromarray(flat).save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
