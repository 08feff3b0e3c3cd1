"""A folder of photographs: surrogates inside masks alone, and starts that keep what is done."""

import json
import shutil
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from harness.anonymised import GENERATOR, INSIDE, SECRET, add, folders_in, options_of, result
from harness.commands import compose
from harness.drawn_faces import drawn_face
from harness.edited import SIZE, tiny_pipeline
from PIL import Image

from lediflow.editing.anonymisation.finding import read_request
from lediflow.editing.anonymisation.run import anonymise_folder
from lediflow.errors import UserError

RUNS = ("run=r", "sampler=s")


@pytest.fixture(scope="module")
def pipeline():
    return tiny_pipeline(channels=3)


@pytest.fixture
def root(tmp_path):
    return folders_in(tmp_path)


def started(pipeline, root, *options, output="out"):
    """The outcome of a start."""
    command = compose("edit_anonymise", *RUNS, *options_of(root, output), *options)
    return anonymise_folder(pipeline, command, read_request(command), {"command": "anonymise"}, None)


def anonymised(pipeline, root, *options, output="out"):
    """The record of a start without photographs that were passed over."""
    assert started(pipeline, root, *options, output=output).passed_over == []
    return json.loads(Path(root, output, "edit.json").read_text())


def test_only_masks_change_and_numbers_follow_the_paths(pipeline, root):
    given = [add(root, name) for name in ("b.png", "a/z.png", "c.png")]
    record = anonymised(pipeline, root, f"mapping={root}/who.json")
    assert json.loads((root / "who.json").read_text()) == {"0": "a/z.png", "1": "b.png", "2": "c.png"}
    for number, pixels in enumerate((given[1], given[0], given[2])):
        assert np.array_equal(result(root, number)[~INSIDE], pixels[~INSIDE])
        assert not np.array_equal(result(root, number)[INSIDE], pixels[INSIDE])
    assert record["results"] == {"written": 3} and record["faces"] == 3
    assert set(record["files"]) == {path.name for path in (root / "out").glob("*.png")}


def test_one_person_has_one_face_in_pictures_that_agree_outside(pipeline, root):
    add(root, "anna/1.png")
    shutil.copy(root / "photographs/anna/1.png", root / "photographs/anna/2.png")
    shutil.copy(root / "masks/anna/1.png", root / "masks/anna/2.png")
    anonymised(pipeline, root, "persons=folders")
    assert np.array_equal(result(root, 0), result(root, 1))
    anonymised(pipeline, root, "persons=files")
    assert not np.array_equal(result(root, 0), result(root, 1))
    (root / "people.csv").write_text("file,face,person\nanna/1.png,0,Anna\nanna/2.png,0,Anna\n")
    anonymised(pipeline, root, f"persons={root}/people.csv")
    assert np.array_equal(result(root, 0), result(root, 1))


def test_three_faces_of_a_large_photograph_become_three_unlike_ones(pipeline, root):
    boxes = [(5, 8, 25, 30), (40, 10, 58, 34), (80, 5, 100, 28)]
    given = add(root, "group.png", *boxes, size=(120, 41))
    record = anonymised(pipeline, root)
    made = result(root, 0)
    assert made.shape == given.shape
    inside = np.zeros(given.shape[:2], dtype=bool)
    patches = []
    for left, top, right, bottom in boxes:
        inside[top:bottom, left:right] = True
        patch = Image.fromarray(made[top:bottom, left:right]).resize((SIZE, SIZE))
        patches.append(np.asarray(patch).astype(int))
    assert np.array_equal(made[~inside], given[~inside])
    distances = [np.abs(patches[a] - patches[b]).mean() for a, b in ((0, 1), (0, 2), (1, 2))]
    assert min(distances) > 10  # of 255
    faces = record["photographs"][0]["faces"]
    assert [(face["square"], face["small"]) for face in faces] == [(28, False), (30, False), (29, False)]


def test_without_masks_faces_are_found_counted_and_replaced(pipeline, root):
    group = Image.new("RGB", (210, 100), (96, 120, 140))
    for x, y, side in ((5, 30, 50), (65, 10, 64), (145, 20, 55)):
        group.paste(drawn_face(side), (x, y))
    group.save(root / "photographs/group.png")
    Image.new("RGB", (60, 40), (20, 90, 30)).save(root / "photographs/meadow.png")
    drawn_face(64).rotate(90).save(root / "photographs/turned.png")
    options = ("masks=null", "framing=1.3", "certainty=0.2")
    (message,) = started(pipeline, root, *options).passed_over
    assert message.startswith("meadow.png: no face: none is found")
    record = json.loads((root / "out/edit.json").read_text())
    assert [len(row["faces"]) for row in record["photographs"]] == [3, 0, 1]
    assert [face["turned"] for row in record["photographs"] for face in row["faces"]] == [
        False,
        False,
        False,
        True,
    ]
    changed = (result(root, 0) != np.asarray(group)).any(axis=-1)
    assert changed[30:55, 85:107].mean() > 0.9 and not changed[:, :4].any()
    assert not (root / "out/000001.png").exists()
    assert started(pipeline, root, *options, "keep_faceless=true") == (1, 2, [])
    assert (result(root, 1) == (20, 90, 30)).all()


def test_what_is_hidden_never_matters_at_strength_1_and_leaves_no_trace(pipeline, root):
    pixels = add(root, "a.png").copy()
    anonymised(pipeline, root, output="one")
    pixels[INSIDE] = GENERATOR.integers(0, 256, (INSIDE.sum(), 3))
    Image.fromarray(pixels).save(root / "photographs/a.png")
    anonymised(pipeline, root, output="two")
    assert np.array_equal(result(root, 0, "one"), result(root, 0, "two"))


def test_a_second_start_makes_only_what_changed(pipeline, root):
    for name in ("a.png", "b.png", "c.png"):
        add(root, name)
    assert started(pipeline, root) == (3, 0, [])
    assert started(pipeline, root) == (0, 3, [])
    add(root, "b.png")
    (root / "out/000002.png").write_bytes(b"damaged")
    assert started(pipeline, root) == (2, 1, [])
    (root / "photographs/c.png").unlink()
    assert started(pipeline, root) == (0, 2, [])
    assert not (root / "out/000002.png").exists()
    (root / "face.key").write_bytes(SECRET[::-1])
    assert started(pipeline, root) == (2, 0, [])


def test_masks_are_found_whatever_the_spelling_of_their_names(pipeline, root):
    add(root, "Zoë.png")
    name = unicodedata.normalize("NFD", "Zoë.png")
    (root / "masks/Zoë.png").rename(root / "masks" / name)
    anonymised(pipeline, root)


@pytest.mark.parametrize(
    ("options", "words"),
    [(["output={root}/photographs/out"], "lie in each other"),
     (["output={root}"], "lie in each other"),
     (["mapping={root}/out/who.json"], "who is who"),
     (["key={root}/out/face.key"], "who is who"),
     (["key={root}/photographs/a.png"], "keep the key elsewhere"),
     (["source={root}/none"], "is not a folder"),
     (["source={root}/face.key"], "is not a folder"),
     (["masks={root}/empty"], "holds no pictures"),
     (["source={root}/empty"], "holds no pictures")],
)  # fmt: skip
def test_places_that_cannot_be_or_would_give_somebody_away_are_refused(options, words, root):
    add(root, "a.png")
    (root / "empty").mkdir()
    given = [*options_of(root, "out"), *(option.format(root=root) for option in options)]
    with pytest.raises(UserError, match=words):
        read_request(compose("edit_anonymise", *RUNS, *given))


@pytest.mark.parametrize(
    ("options", "words"),
    [(["strength=1.1"], "at most 1"), (["strength=nan"], "strength"), (["framing=0.9"], "at least 1"),
     (["steps=0"], "steps=0"), (["persons="], "persons is empty")],
)  # fmt: skip
def test_options_that_do_not_fit_are_refused(options, words):
    with pytest.raises(UserError, match=words):
        compose("edit_anonymise", "run=r", "sampler=s", "output=o", "source=p", "masks=m", "key=k", *options)
