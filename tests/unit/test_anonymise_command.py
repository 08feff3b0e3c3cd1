"""`python -m lediflow.edit anonymise`: surrogates in masks, nothing that names a person, and restarts."""

import base64
import json
import shutil
import sys
import unicodedata

import numpy as np
import pytest
from harness.commands import compose, invoke, succeed
from harness.drawn_faces import drawn_face
from harness.edited import SIZE, save_tiny_runs
from harness.marked import MARKER, bytes_of, marked_jpeg, marked_mpo
from harness.processes import Started
from PIL import Image

from lediflow.editing.anonymisation.finding import read_request
from lediflow.errors import UserError

SECRET = bytes(range(60, 92))
BOX = (4, 5, 12, 13)
INSIDE = np.zeros((SIZE, SIZE), dtype=bool)
INSIDE[5:13, 4:12] = True
GENERATOR = np.random.default_rng(0)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return save_tiny_runs(tmp_path_factory.mktemp("models"), channels=3)


@pytest.fixture
def root(tmp_path):
    """A key, and empty folders for photographs and masks."""
    (tmp_path / "face.key").write_bytes(SECRET)
    (tmp_path / "face.key").chmod(0o600)
    for name in ("photographs", "masks"):
        (tmp_path / name).mkdir()
    return tmp_path


def add(root, name, *boxes, size=(SIZE, SIZE), content=None):
    """A photograph of noise (or `content`), with a mask of these boxes."""
    image = Image.fromarray(GENERATOR.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
    path = root / "photographs" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if content is None:
        image.save(path)
    else:
        path.write_bytes(content(image))
    mask = Image.new("L", size)
    for box in boxes or (BOX,):
        mask.paste(255, box)
    target = (root / "masks" / name).with_suffix(".png")
    target.parent.mkdir(parents=True, exist_ok=True)
    mask.save(target)
    return np.asarray(Image.open(path).convert("RGB"))


def arguments(models, root, *options, output="out"):
    return (
        "edit", "anonymise", f"run={models}/flow", f"sampler={models}/sampler", f"output={root / output}",
        f"source={root}/photographs", f"masks={root}/masks", f"key={root}/face.key", "device=cpu",
        "latent_solver=midpoint", *options,
    )  # fmt: skip


def anonymised(models, root, *options, output="out"):
    """The record of a success."""
    succeed(*arguments(models, root, *options, output=output))
    return json.loads((root / output / "edit.json").read_text())


def result(root, number, output="out"):
    return np.asarray(Image.open(root / output / f"{number:06d}.png"))


def test_only_masks_change_and_numbers_follow_the_paths(models, root):
    given = [add(root, name) for name in ("b.png", "a/z.png", "c.png")]
    record = anonymised(models, root, f"mapping={root}/who.json")
    assert json.loads((root / "who.json").read_text()) == {"0": "a/z.png", "1": "b.png", "2": "c.png"}
    for number, pixels in enumerate((given[1], given[0], given[2])):
        assert np.array_equal(result(root, number)[~INSIDE], pixels[~INSIDE])
        assert not np.array_equal(result(root, number)[INSIDE], pixels[INSIDE])
    assert record["results"] == {"written": 3} and record["faces"] == 3
    assert set(record["files"]) == {path.name for path in (root / "out").glob("*.png")}
    assert set(record["weights"]) == {"flow", "auxiliary", "latent_sampler"}


def test_one_person_has_one_face_in_pictures_that_agree_outside(models, root):
    add(root, "anna/1.png")
    shutil.copy(root / "photographs/anna/1.png", root / "photographs/anna/2.png")
    shutil.copy(root / "masks/anna/1.png", root / "masks/anna/2.png")
    anonymised(models, root, "persons=folders")
    assert np.array_equal(result(root, 0), result(root, 1))
    anonymised(models, root, "persons=files")
    assert not np.array_equal(result(root, 0), result(root, 1))
    (root / "people.csv").write_text("file,face,person\nanna/1.png,0,Anna\nanna/2.png,0,Anna\n")
    anonymised(models, root, f"persons={root}/people.csv")
    assert np.array_equal(result(root, 0), result(root, 1))


def test_three_faces_of_a_large_photograph_become_three_unlike_ones(models, root):
    boxes = [(5, 8, 25, 30), (40, 10, 58, 34), (80, 5, 100, 28)]
    given = add(root, "group.png", *boxes, size=(120, 41))
    record = anonymised(models, root)
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


def test_without_masks_faces_are_found_counted_and_replaced(models, root):
    group = Image.new("RGB", (420, 200), (96, 120, 140))
    for x, y, side in ((10, 60, 100), (130, 20, 128), (290, 40, 110)):
        group.paste(drawn_face(side), (x, y))
    group.save(root / "photographs/group.png")
    Image.new("RGB", (60, 40), (20, 90, 30)).save(root / "photographs/meadow.png")
    drawn_face(128).rotate(90).save(root / "photographs/turned.png")
    options = ("masks=null", "framing=1.3")
    said = invoke(*arguments(models, root, *options))
    assert said.status == 2 and "meadow.png: no face: none is found" in said.err
    record = json.loads((root / "out/edit.json").read_text())
    assert [len(row["faces"]) for row in record["photographs"]] == [3, 0, 1]
    assert [face["turned"] for row in record["photographs"] for face in row["faces"]] == [
        False,
        False,
        False,
        True,
    ]
    changed = (result(root, 0) != np.asarray(group)).any(axis=-1)
    assert changed[60:110, 170:215].mean() > 0.9 and not changed[:, :8].any()
    assert not (root / "out/000001.png").exists()
    succeed(*arguments(models, root, *options, "keep_faceless=true"))
    assert (result(root, 1) == (20, 90, 30)).all()


def test_what_is_hidden_never_matters_at_strength_1_and_leaves_no_trace(models, root):
    pixels = add(root, "a.png").copy()
    anonymised(models, root, output="one")
    pixels[INSIDE] = GENERATOR.integers(0, 256, (INSIDE.sum(), 3))
    Image.fromarray(pixels).save(root / "photographs/a.png")
    anonymised(models, root, output="two")
    assert np.array_equal(result(root, 0, "one"), result(root, 0, "two"))


def test_no_output_holds_marker_path_key_or_person(models, root):
    name = "Anna-Musterfrau-47 Ünïcode/Zweitname-Foto.jpg"
    add(root, name, content=marked_jpeg)
    add(root, "Zweitname-Mpo.jpg", content=marked_mpo)
    assert all(MARKER.encode() in path.read_bytes() for path in (root / "photographs").rglob("*.jpg"))
    (root / "Tabellenname.csv").write_text(
        f"file,face,person\n{name},0,Personenname\nZweitname-Mpo.jpg,0,Personenname\n", encoding="utf-8"
    )
    options = (f"persons={root}/Tabellenname.csv", f"mapping={root}/who.json", "strength=0.5", "seed=11")
    anonymised(models, root, *options)
    found = bytes_of(root / "out")
    assert b"lediflow.edit anonymise" in found  # the origin is there, without what follows
    secrets = [MARKER, "Zweitname", "Personenname", "Tabellenname", "who.json", "face.key", str(root), root.name,
               "photographs/", "masks", SECRET.hex(), base64.b64encode(SECRET).decode()]  # fmt: skip
    held = [secret for secret in secrets if secret.encode() in found and secret != "photographs/"]
    assert held == []
    assert SECRET not in found and str(models).encode() not in found
    for path in (root / "out").glob("*.png"):
        with Image.open(path) as image:
            assert set(image.info) <= {"lediflow"} and not image.getexif()
    anonymised(models, root, *options, "--no-metadata", output="bare")
    assert b"lediflow.edit" not in b"".join(path.read_bytes() for path in (root / "bare").glob("*.png"))


def test_bad_files_are_listed_and_passed_over_and_the_status_says_so(models, root):
    add(root, "0.png")
    add(root, "1 broken.png")
    (root / "photographs/1 broken.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"no picture")
    add(root, "2 black.png")
    Image.new("L", (SIZE, SIZE)).save(root / "masks/2 black.png")
    add(root, "3 alone.png")
    (root / "masks/3 alone.png").unlink()
    add(root, "4 other size.png")
    Image.new("L", (5, 5), 255).save(root / "masks/4 other size.png")
    add(root, "5 full.png")
    Image.new("L", (SIZE, SIZE), 255).save(root / "masks/5 full.png")
    add(root, "6 写真.png")
    (root / "photographs/notes.txt").write_text("ignored")
    said = invoke(*arguments(models, root))
    assert said.status == 2 and "5 of 7 photographs have no result" in said.err
    for name in ("1 broken", "2 black", "3 alone", "4 other size", "5 full"):
        assert f"passed over {name}" in said.err
    record = json.loads((root / "out/edit.json").read_text())
    results = [row["result"] for row in record["photographs"]]
    assert results == ["written", "unreadable", "no face", "mask", "mask", "mask", "written"]
    assert set(record["files"]) == {"000000.png", "000006.png"}
    assert "unfinished" not in record
    said = invoke(*arguments(models, root, "keep_faceless=true"))
    assert "4 of 7 photographs" in said.err and "2 of an earlier start kept" not in said.out
    assert np.array_equal(result(root, 2), np.asarray(Image.open(root / "photographs/2 black.png")))


@pytest.mark.processes
def test_a_killed_command_continues_to_the_bytes_of_an_unbroken_one(models, root):
    for number in range(16):
        add(root, f"Ж写 {number:02d}.png")
    command, task, *options = arguments(models, root, output="broken")
    running = Started([sys.executable, "-m", f"lediflow.{command}", task, *options])
    running.wait_until(lambda: len([*(root / "broken").glob("0*.png")]) >= 3)
    running.kill()
    done = len([*(root / "broken").glob("0*.png")])
    assert done < 16 and json.loads((root / "broken/edit.json").read_text())["unfinished"]
    said = succeed(*arguments(models, root, output="broken"))
    assert "of an earlier start kept" in said.out
    anonymised(models, root, output="whole")
    assert bytes_of(root / "broken") == bytes_of(root / "whole")


def test_a_second_start_makes_only_what_changed(models, root):
    for name in ("a.png", "b.png", "c.png"):
        add(root, name)
    anonymised(models, root)
    said = succeed(*arguments(models, root))
    assert "anonymised: 0 photographs, and 3 of an earlier start kept" in said.out
    add(root, "b.png")
    (root / "out/000002.png").write_bytes(b"damaged")
    assert "2 photographs, and 1 of" in succeed(*arguments(models, root)).out
    (root / "photographs/c.png").unlink()
    assert "0 photographs, and 2 of" in succeed(*arguments(models, root)).out
    assert not (root / "out/000002.png").exists()
    (root / "face.key").write_bytes(SECRET[::-1])
    assert "anonymised: 2 photographs, edit.json" in succeed(*arguments(models, root)).out


def test_masks_are_found_whatever_the_spelling_of_their_names(models, root):
    add(root, "Zoë.png")
    name = unicodedata.normalize("NFD", "Zoë.png")
    (root / "masks/Zoë.png").rename(root / "masks" / name)
    anonymised(models, root)


@pytest.mark.parametrize(
    ("options", "words"),
    [(["output={root}/photographs/out"], "lie in each other"),
     (["output={root}"], "lie in each other"),
     (["mapping={root}/out/who.json"], "who is who"),
     (["key={root}/out/face.key"], "who is who"),
     (["source={root}/none"], "is not a folder"),
     (["source={root}/face.key"], "is not a folder"),
     (["masks={root}/empty"], "holds no pictures"),
     (["source={root}/empty"], "holds no pictures")],
)  # fmt: skip
def test_places_that_cannot_be_or_would_give_somebody_away_are_refused(options, words, root):
    add(root, "a.png")
    (root / "empty").mkdir()
    command, task, *given = arguments(root, root, *(option.format(root=root) for option in options))
    with pytest.raises(UserError, match=words):
        read_request(compose(f"{command}_{task}", *given))


def test_below_strength_1_a_warning_says_what_is_left(models, root):
    add(root, "a.png")
    said = succeed(*arguments(models, root, "strength=0.5"))
    assert "identifies the person" in said.err
    record = json.loads((root / "out/edit.json").read_text())
    assert record["warnings"] and set(record["photographs"][0]["faces"][0]["round_trip"]) == {
        "midpoint 4",
        "dopri5",
    }


@pytest.mark.parametrize(
    ("options", "words"),
    [(["strength=1.1"], "at most 1"), (["strength=nan"], "strength"), (["framing=0.9"], "at least 1"),
     (["steps=0"], "steps=0"), (["persons="], "persons is empty")],
)  # fmt: skip
def test_options_that_do_not_fit_are_refused(options, words):
    with pytest.raises(UserError, match=words):
        compose("edit_anonymise", "run=r", "sampler=s", "output=o", "source=p", "masks=m", "key=k", *options)
