"""Which transformations images go through in training, and how often."""

from dataclasses import dataclass

from lediflow.ranges import bounded


@dataclass(kw_only=True)
class AugmentConfig:
    """Transformations whose parameters the model is given; their sizes are those of EDM and k-diffusion."""

    probability: float = bounded(
        0.0, at_least=0, at_most=1
    )  # of each transformation of an image; higher: less is memorised, fewer images stay unchanged; EDM: 0.12; 0: off
    flip_horizontal: bool = True  # half of all images; left to data.flip_horizontal where that is on
    flip_vertical: bool = True  # half of the chosen ones; left to data.flip_vertical where on
    scaling: bool = True  # by 2^(0.2 n), n ~ N(0, 1): larger and smaller
    rotation: bool = True  # by any angle
    anisotropy: bool = True  # stretched by 2^(0.2 n) along any direction, and shrunk as much across
    translation: bool = True  # by n/8 of the side on each axis
