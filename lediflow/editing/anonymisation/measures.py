"""Numbers about anonymised faces: is the person found again, is a face there, where are its parts.

Re-identification: a probe is found if the nearest embedding of a gallery, of other photographs, is of its person
(rank 1). By chance this happens with the share of the gallery that shows the person.

Pose and expression, from five landmarks: roll is the angle of the line from mouth to eyes; yaw the distance of the nose
from that line, and the mouth's width, both as shares of the line's length. What stayed is the correlation over
photographs.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from lediflow.editing.anonymisation.detection import Detection
from lediflow.editing.anonymisation.embedding import Embedding

Landmarks = Float[np.ndarray, "5 2"]
NORMAL_95 = 1.96
FEWEST = 3  # pairs of numbers that have a correlation


class Seen(NamedTuple):
    """What is measured on one face: its detection, if it is found, and its embedding."""

    detection: Detection | None
    embedding: Embedding


class Pose(NamedTuple):
    """Roll in degrees; yaw and mouth as shares of the distance from mouth to eyes."""

    roll: float
    yaw: float
    mouth: float


def pose_of(landmarks: Landmarks) -> Pose:
    eyes, mouth = landmarks[:2].mean(axis=0), landmarks[3:].mean(axis=0)
    up = eyes - mouth
    length = max(float(np.hypot(*up)), 1e-6)
    across = np.array([-up[1], up[0]]) / length  # to the right of an upright face
    nose = float((landmarks[2] - mouth) @ across) / length
    width = float(np.hypot(*(landmarks[4] - landmarks[3]))) / length
    return Pose(math.degrees(math.atan2(up[0], -up[1])), nose, width)


def rank_1(
    probes: list[Embedding], persons: list[str], gallery: list[Embedding], gallery_persons: list[str]
) -> float:
    """The share of probes whose nearest embedding in the gallery is of their person."""
    distances = np.linalg.norm(np.stack(probes)[:, None] - np.stack(gallery)[None], axis=-1)
    nearest = [gallery_persons[number] for number in distances.argmin(axis=1)]
    return float(np.mean([found == person for found, person in zip(nearest, persons, strict=True)]))


def chance(persons: list[str], gallery_persons: list[str]) -> float:
    """rank_1 of a guess: the mean share of the gallery that shows a probe's person."""
    return float(np.mean([gallery_persons.count(person) / len(gallery_persons) for person in persons]))


def interval(share: float, count: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share of `count`."""
    centre = share + NORMAL_95**2 / (2 * count)
    width = NORMAL_95 * math.sqrt(share * (1 - share) / count + NORMAL_95**2 / (4 * count**2))
    scale = 1 + NORMAL_95**2 / count
    return max((centre - width) / scale, 0.0), min((centre + width) / scale, 1.0)


def landmark_error(before: Detection, after: Detection) -> float:
    """The mean distance of the five landmarks, as a share of the height of the face before."""
    distances = np.linalg.norm(before.landmarks - after.landmarks, axis=1)
    return float(distances.mean()) / (before.box[3] - before.box[1])


def kept_pose(pairs: list[tuple[Detection, Detection]]) -> dict[str, float | None]:
    """The correlation of each number of the pose before and after; None if there are too few, or they are constant."""
    poses = [[pose_of(one.landmarks) for one in pair] for pair in pairs]
    found: dict[str, float | None] = {}
    for number, name in enumerate(Pose._fields):
        before, after = ([pose[side][number] for pose in poses] for side in (0, 1))
        is_defined = len(pairs) >= FEWEST and np.std(before) > 0 and np.std(after) > 0
        found[name] = float(np.corrcoef(before, after)[0, 1]) if is_defined else None
    return found


def row_of(
    name: str,
    before: list[Seen],
    after: list[Seen],
    persons: list[str],
    gallery: list[Embedding],
    gallery_persons: list[str],
) -> dict[str, Any]:
    """The numbers of one way to hide faces, over all probes."""
    found = rank_1([one.embedding for one in after], persons, gallery, gallery_persons)
    pairs = [
        (one.detection, other.detection)
        for one, other in zip(before, after, strict=True)
        if one.detection is not None and other.detection is not None
    ]
    distances = [np.linalg.norm(a.embedding - b.embedding) for a, b in zip(before, after, strict=True)]
    return {
        "name": name,
        "rank_1": found,
        "rank_1_interval": interval(found, len(after)),
        "distance": float(np.mean(distances)),
        "detected": float(np.mean([one.detection is not None for one in after])),
        "landmark_error": float(np.mean([landmark_error(*pair) for pair in pairs])) if pairs else None,
        "kept": kept_pose(pairs),
    }
