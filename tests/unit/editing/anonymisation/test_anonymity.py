"""The report on drawn faces, with a stand-in for the network that recognises persons: the mean colour of a face."""

import json
import sys

import numpy as np
import pytest
from harness.commands import compose
from harness.drawn_faces import drawn_face
from harness.edited import tiny_pipeline
from PIL import Image

from lediflow.editing.anonymisation.anonymity import (
    Subject,
    divide,
    measured_anonymity,
    mirrored,
    page,
    seen_face,
    write_report,
)
from lediflow.editing.anonymisation.detection import Detection, FaceDetector
from lediflow.editing.anonymisation.embedding import dlib_embedder
from lediflow.editing.anonymisation.faces import Face, Square
from lediflow.editing.anonymisation.finding import finder_for, read_request
from lediflow.errors import UserError

SKINS = {"anna": (222, 178, 148), "ben": (120, 80, 60), "carl": (250, 225, 205)}
MARKS = np.array([[100, 100], [156, 100], [128, 130], [105, 165], [150, 165]], dtype=np.float32)


class Everywhere:
    """A detector that takes everything for a face in the middle."""

    def nearest(self, pixels, point):
        return Detection((60.0, 50.0, 196.0, 200.0), 0.9, MARKS)


class Nowhere:
    def nearest(self, pixels, point):
        return None


def colour(pixels, box):
    left, top, right, bottom = (round(value) for value in box)
    return pixels[top:bottom, left:right].mean(axis=(0, 1))


@pytest.fixture(scope="module")
def pipeline():
    return tiny_pipeline(channels=3)


@pytest.fixture
def command(tmp_path):
    """Two photographs of each person, with masks, and a key."""
    for name, skin in SKINS.items():
        for number, side in enumerate((40, 44)):
            for folder, picture in (
                ("photographs", drawn_face(side, skin)),
                ("masks", Image.new("L", (side, side))),
            ):
                path = tmp_path / folder / name / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                if folder == "masks":
                    picture.paste(255, (6, 6, side - 6, side - 4))
                picture.save(path)
    (tmp_path / "face.key").write_bytes(bytes(range(32)))
    return compose(
        "edit_anonymity", "run=r", "sampler=s", f"output={tmp_path}/out", f"source={tmp_path}/photographs",
        f"masks={tmp_path}/masks", f"key={tmp_path}/face.key", "persons=folders", "strengths=[0,1]",
        "latent_solver=midpoint",
    )  # fmt: skip


def measured(pipeline, command, detector=None, embedder=colour):
    finder = finder_for(pipeline, command, read_request(command))
    return measured_anonymity(pipeline, command, finder, detector or Everywhere(), embedder)


def test_every_way_is_a_row_and_unchanged_persons_are_found(pipeline, command, tmp_path):
    result = measured(pipeline, command)
    names = [row["name"] for row in result["rows"]]
    assert names == ["original", "strength 0", "strength 1", "random face", "blur", "pixels"]
    original = result["rows"][0]
    assert (original["rank_1"], original["distance"], original["landmark_error"]) == (1, 0, 0)
    assert (result["probes"], result["gallery"], result["persons"], result["mirrored"]) == (3, 3, 3, 0)
    assert result["chance"] == pytest.approx(1 / 3)
    # blur and pixels keep the mean colour, which is all that this stand-in looks at
    assert all(row["rank_1"] == 1 for row in result["rows"][4:])
    assert result["rows"][2]["distance"] > result["rows"][4]["distance"]
    text = write_report(tmp_path / "out", result)
    assert json.loads((tmp_path / "out/anonymity.json").read_text()) == json.loads(json.dumps(result))
    stored = json.loads((tmp_path / "out/anonymity.json").read_text())
    assert text == (tmp_path / "out/anonymity.md").read_text() == page(result) == page(stored)
    assert "| strength 1 |" in text and not any(name in text for name in (*SKINS, str(tmp_path)))


def test_an_embedder_that_tells_nobody_apart_gives_no_verdict(pipeline, command):
    command.strengths = [1.0]
    result = measured(pipeline, command, embedder=lambda pixels, box: np.zeros(3))
    assert "does not tell these persons apart" in result["verdict"]["text"]
    assert not result["verdict"]["is_met"]


def test_faces_that_are_no_longer_detected_miss_the_goal(pipeline, command):
    command.strengths = [1.0]
    result = measured(pipeline, command, detector=Nowhere())
    assert [row["detected"] for row in result["rows"]] == [0] * 5
    assert (
        "0.0% of the faces are detected" in result["verdict"]["text"]
        and "not met" in result["verdict"]["text"]
        and "persons are too few to judge it, take 10 or more" in result["verdict"]["text"]
    )


def test_one_photograph_is_compared_with_its_mirror_image():
    subjects = [subject("anna"), subject("ben"), subject("anna"), subject("anna")]
    divided = divide(subjects)
    assert [one.person for one in divided.gallery] == ["anna", "anna", "ben"]
    assert [one.person for one in divided.probes] == ["anna", "ben"]
    assert divided.views == 1
    assert np.array_equal(divided.gallery[2].pixels, subjects[1].pixels[:, ::-1])


def test_a_mirrored_square_holds_the_mirrored_face():
    one = subject("anna")
    there = mirrored(one)
    assert there.face.square == Square(60 - 5 - 20, 3, 20, 3)
    back = mirrored(there)
    assert np.array_equal(back.pixels, one.pixels) and back.face.square == one.face.square


def subject(person):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    levels = np.zeros((40, 60), dtype=np.uint8)
    levels[5:20, 8:22] = 255
    return Subject(pixels, Face(levels, Square(5, 3, 20, 1)), person)


def test_a_face_is_looked_up_upright_where_it_was():
    """A drawn face on its side, in a square that says so."""
    face = drawn_face(100).rotate(90)
    pixels = np.zeros((200, 300, 3), dtype=np.uint8)
    pixels[40:140, 120:220] = np.asarray(face)
    boxes = []

    def embed(pixels, box):
        boxes.append(box)
        return np.zeros(1)

    seen = seen_face(pixels, Face(np.zeros((200, 300)), Square(120, 40, 100, 3)), FaceDetector(0.3), embed)
    assert seen.detection is not None and abs(seen.detection.roll) < 15
    assert boxes == [seen.detection.box]


def test_one_person_is_too_few(pipeline, command):
    command.persons = "folders"
    command.source += "/anna"
    command.masks += "/anna"
    with pytest.raises(UserError, match="2 persons at least"):
        measured(pipeline, command)


def test_a_missing_recogniser_is_named_with_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "dlib", None)
    with pytest.raises(UserError, match=r"lediflow\[faces\]"):
        dlib_embedder()


def test_the_recogniser_gives_a_face_its_numbers():
    embed = dlib_embedder()
    face = np.asarray(drawn_face(200))
    one, again = (embed(face, (40.0, 30.0, 155.0, 178.0)) for _ in range(2))
    assert one.shape == (128,) and np.array_equal(one, again)
    assert embed(face[..., :1], (40.0, 30.0, 155.0, 178.0)).shape == (128,)
