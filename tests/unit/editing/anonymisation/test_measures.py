"""Numbers of the report, against values worked out by hand."""

import numpy as np
import pytest

from lediflow.editing.anonymisation.detection import Detection
from lediflow.editing.anonymisation.measures import (
    Seen,
    chance,
    interval,
    kept_pose,
    landmark_error,
    pose_of,
    rank_1,
    row_of,
)

UPRIGHT = np.array([[-10, -20], [10, -20], [0, 0], [-8, 20], [8, 20]], dtype=np.float32)


def turned(landmarks, degrees):
    """Clockwise, y pointing down."""
    angle = np.radians(degrees)
    return landmarks @ np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])


def detection(landmarks):
    return Detection((-20, -30, 20, 30), 0.9, np.asarray(landmarks, dtype=np.float32))


def test_pose_is_that_of_the_landmarks_at_any_size_and_turn():
    looking_right = UPRIGHT + np.array([[0, 0], [0, 0], [6, 0], [0, 0], [0, 0]])
    for degrees, scale in ((0, 1), (30, 1), (-75, 2.5)):
        pose = pose_of(scale * turned(looking_right, degrees))
        assert pose == pytest.approx((degrees, 6 / 40, 16 / 40), abs=1e-5)


def test_rank_1_counts_nearest_neighbours_of_the_own_person():
    gallery = [np.array([0.0, 0]), np.array([5.0, 0]), np.array([9.0, 0]), np.array([20.0, 0])]
    owners = ["anna", "ben", "ben", "carl"]
    probes = [np.array([1.0, 1]), np.array([4.0, 0]), np.array([2.0, 0])]
    assert rank_1(probes, ["anna", "ben", "carl"], gallery, owners) == pytest.approx(2 / 3)
    assert chance(["anna", "ben", "carl"], owners) == pytest.approx((1 / 4 + 2 / 4 + 1 / 4) / 3)


def test_the_interval_is_wilsons():
    assert interval(0.5, 10) == pytest.approx((0.2366, 0.7634), abs=1e-4)  # tabulated
    assert interval(0.0, 20) == pytest.approx((0.0, 0.1611), abs=1e-4)


def test_the_landmark_error_is_in_heights_of_the_face():
    assert landmark_error(detection(UPRIGHT), detection(UPRIGHT + np.array([3, 4]))) == pytest.approx(5 / 60)


def test_what_is_kept_of_the_pose_is_its_correlation():
    rolls = (-20, -5, 10, 30)
    pairs = [(detection(turned(UPRIGHT, roll)), detection(turned(UPRIGHT, 0.5 * roll + 3))) for roll in rolls]
    kept = kept_pose(pairs)
    assert kept["roll"] == pytest.approx(1, abs=1e-4)
    against = [(one, detection(turned(UPRIGHT, -roll))) for (one, _), roll in zip(pairs, rolls, strict=True)]
    assert kept_pose(against)["roll"] == pytest.approx(-1, abs=1e-4)
    assert kept_pose(pairs[:2]) == {"roll": None, "yaw": None, "mouth": None}


def test_a_face_that_is_not_detected_still_counts_for_recognition():
    before = [Seen(detection(UPRIGHT), np.array([0.0])), Seen(detection(UPRIGHT), np.array([10.0]))]
    after = [Seen(None, np.array([1.0])), Seen(detection(UPRIGHT), np.array([2.0]))]
    row = row_of("blur", before, after, ["anna", "ben"], [np.array([0.0]), np.array([10.0])], ["anna", "ben"])
    assert (row["rank_1"], row["detected"], row["distance"]) == (0.5, 0.5, 4.5)
    assert row["landmark_error"] == 0
