"""`python -m lediflow.edit anonymise`: surrogates in masks, nothing that names a person, and restarts."""

import base64
import json
import sys

import numpy as np
import pytest
from harness.anonymised import SECRET, add, folders_in, options_of, result
from harness.commands import invoke, succeed
from harness.edited import SIZE, save_tiny_runs
from harness.marked import MARKER, bytes_of, marked_jpeg, marked_mpo
from harness.processes import Started
from PIL import Image


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return save_tiny_runs(tmp_path_factory.mktemp("models"), channels=3)


@pytest.fixture
def root(tmp_path):
    return folders_in(tmp_path)


def arguments(models, root, *options, output="out"):
    models = (f"run={models}/flow", f"sampler={models}/sampler")
    return ("edit", "anonymise", *models, *options_of(root, output), "device=cpu", *options)


def anonymised(models, root, *options, output="out"):
    """The record of a success."""
    succeed(*arguments(models, root, *options, output=output))
    return json.loads((root / output / "edit.json").read_text())


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


def test_below_strength_1_a_warning_says_what_is_left(models, root):
    add(root, "a.png")
    said = succeed(*arguments(models, root, "strength=0.5"))
    assert "identifies the person" in said.err
    record = json.loads((root / "out/edit.json").read_text())
    assert record["warnings"] and set(record["photographs"][0]["faces"][0]["round_trip"]) == {
        "midpoint 4",
        "dopri5",
    }


def test_models_of_a_codec_and_flow_maps_are_refused(root):
    add(root, "a.png")
    for kind, words in (({"codec": "taesd"}, "models of pixels"), ({"is_flow_map": True}, "is a flow map")):
        name = next(iter(kind))
        said = invoke(*arguments(save_tiny_runs(root / name, channels=3, **kind), root))
        assert said.status == 2 and words in said.err
    assert not (root / "out").exists()
