"""Drawn faces that the detector takes for faces; nobody's."""

from __future__ import annotations

from PIL import Image, ImageDraw, ImageFilter

SCALE = 4  # drawn larger, then reduced


def drawn_face(side: int, skin: tuple[int, int, int] = (222, 178, 148)) -> Image.Image:
    """A face with hair, eyes, nose and mouth on a grey ground, about 0.8 `side` high."""
    image = Image.new("RGB", (SCALE * side, SCALE * side), (96, 120, 140))
    draw = ImageDraw.Draw(image)

    def oval(x: float, y: float, width: float, height: float, colour: tuple[int, int, int]) -> None:
        """An ellipse around (x, y); all in shares of the side."""
        box = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
        draw.ellipse([round(SCALE * side * value) for value in box], fill=colour)

    dark = tuple(round(0.72 * channel) for channel in skin)
    oval(0.5, 0.44, 0.68, 0.80, (52, 36, 26))
    oval(0.5, 0.52, 0.56, 0.74, skin)
    for x in (0.385, 0.615):
        oval(x, 0.41, 0.15, 0.03, (60, 42, 30))
        oval(x, 0.47, 0.13, 0.065, (245, 245, 245))
        oval(x, 0.47, 0.06, 0.06, (50, 60, 70))
        oval(x, 0.47, 0.025, 0.025, (5, 5, 5))
    oval(0.5, 0.59, 0.07, 0.16, dark)
    oval(0.5, 0.655, 0.12, 0.045, dark)
    oval(0.5, 0.76, 0.24, 0.07, (170, 70, 72))
    oval(0.5, 0.757, 0.20, 0.012, (110, 30, 34))
    soft = image.filter(ImageFilter.GaussianBlur(SCALE * side / 128))
    return soft.resize((side, side), Image.Resampling.LANCZOS)
