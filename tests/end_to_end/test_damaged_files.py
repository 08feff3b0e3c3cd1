"""Every file that one command writes and another reads, spoilt: a sentence that names it, and status 2.

A traceback, or status 1 (which a scheduler takes for bad luck and tries again), fails here.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from harness.commands import invoke, succeed
from PIL import Image

from lediflow.report import write_report
from lediflow.report.content import ReportData


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def binary(path: Path) -> None:
    path.write_bytes(bytes(range(256)))


def nested(path: Path) -> None:
    path.write_bytes(b"[" * 100_000)


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def keyless(path: Path) -> None:
    path.write_text("{}\n")


def retyped(path: Path) -> None:
    """Text for numbers, numbers for text, lists and all."""
    values = json.loads(path.read_text())
    path.write_text(json.dumps({key: 7 if isinstance(value, str) else "x" for key, value in values.items()}))


@contextmanager
def spoilt(path: Path, spoil: Callable[[Path], None]) -> Iterator[None]:
    content = path.read_bytes()
    spoil(path)
    try:
        yield
    finally:
        if path.is_dir():
            path.rmdir()
        path.write_bytes(content)


@pytest.fixture(scope="module")
def root(trained, tmp_path_factory):
    """A folder for what is made here, with samples of the trained flow."""
    out = tmp_path_factory.mktemp("spoilt")
    succeed(*commands(trained, out)["sample"])
    return out


def commands(trained, out: Path) -> dict[str, tuple[object, ...]]:
    pair = (f"run={trained.flow}", f"sampler={trained.sampler}")
    data = (f"data.path={trained.latents}", f"paths.runs={out}")
    return {
        **trained.commands,
        "train": (*trained.commands["flow"], f"run={out}/new", "train.images=16"),
        "sample": ("sample", *pair, "count=2", "steps=1", "device=cpu", f"output={out}/samples"),
        "prior": (
            "evaluate",
            "mode=prior",
            f"run={trained.flow}",
            *data,
            "device=cpu",
            f"output={out}/prior",
        ),
        "report": ("report", trained.flow, "--output", out / "report.html"),
        "inspect": ("checkpoint", "inspect", trained.flow),
        "verify": ("checkpoint", "verify", trained.flow),
        "status": ("status", trained.root),
    }


CHECKPOINT = "flow/checkpoints/000000000064"
REFUSED = [
    ("shards/index.json", emptied, "shards"),
    ("shards/index.json", retyped, "latents"),
    ("shards/index.offsets.npy", cut, "shards"),
    ("shards/index.offsets.npy", emptied, "latents"),
    ("shards/rejected.jsonl", binary, "shards"),
    ("latents/index.json", cut, "train"),
    ("latents/index.json", keyless, "prior"),
    ("latents/index.offsets.npy", binary, "train"),
    ("latents/index.offsets.npy", folder, "prior"),
    ("flow/export/config.json", emptied, "sample"),
    ("flow/export/config.json", cut, "prior"),
    ("flow/export/config.json", retyped, "report"),
    ("flow/export/config.json", folder, "report"),
    ("flow/export/config.json", keyless, "sample"),
    ("flow/export/model.safetensors", cut, "sample"),
    ("auxiliary/export/config.json", keyless, "train"),
    ("auxiliary/export/config.json", nested, "prior"),
    ("sampler/export/config.json", retyped, "sample"),
    (f"{CHECKPOINT}/manifest.json", cut, "verify"),
    (f"{CHECKPOINT}/progress.json", emptied, "verify"),
]
BORNE = [
    (f"{CHECKPOINT}/manifest.json", nested, "inspect"),
    ("flow/export/config.json", retyped, "status"),
    ("flow/events.jsonl", binary, "status"),
    ("flow/events.jsonl", nested, "report"),
    ("flow/lease.json", keyless, "status"),
    ("flow/config.yaml", binary, "status"),
    ("flow/heartbeats/0.json", retyped, "status"),
]


@pytest.mark.parametrize(("name", "spoil", "command"), REFUSED)
def test_damaged_required_files_are_refused_by_name(name, spoil, command, trained, root):
    with spoilt(trained.root / name, spoil):
        said = invoke(*commands(trained, root)[command])
    assert said.status == 2
    sentence = said.err.splitlines()[-1]
    assert sentence.startswith("error: ")
    if command == "verify":
        name = CHECKPOINT.rpartition("/")[2]
    assert str(name) in sentence
    assert any(advice in sentence for advice in ("again", "anew", "Remove", "give"))


@pytest.mark.parametrize(("name", "spoil", "command"), BORNE)
def test_damaged_optional_files_are_tolerated(name, spoil, command, trained, root):
    with spoilt(trained.root / name, spoil):
        assert invoke(*commands(trained, root)[command]).status == 0


def test_a_disk_that_cannot_be_written_is_status_2(trained, tmp_path, monkeypatch):
    """As with a read-only run: an error of the pictures' writer is reported by the command."""

    def refuse(*arguments, **options):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), "samples/000000.png")

    monkeypatch.setattr(Image.Image, "save", refuse)
    said = invoke(*commands(trained, tmp_path)["sample"])
    assert said.status == 2
    assert "Read-only file system; the file system is read-only: choose another output" in said.err


@pytest.mark.parametrize("spoil", [cut, emptied, nested, binary, keyless])
def test_a_damaged_record_of_samples_is_refused(spoil, trained, root):
    with spoilt(root / "samples" / "samples.json", spoil):
        said = invoke(*commands(trained, root)["sample"])
    assert said.status == 2
    assert "samples" in said.err


@pytest.mark.parametrize("spoil", [keyless, folder])
@pytest.mark.parametrize("option", ["images", "reference"])
def test_pictures_with_a_damaged_record_are_not_measured(spoil, option, trained, root, tmp_path):
    pictures = {"images": trained.root / "pictures/disc", "reference": trained.root / "pictures/bar"}
    pictures[option] = root / "samples"
    asked = [f"{name}={path}" for name, path in pictures.items()]
    with spoilt(root / "samples" / "samples.json", spoil):
        said = invoke("evaluate", *asked, f"output={tmp_path}")
    assert said.status == 2
    assert f"{root}/samples/samples.json" in said.err and "draw them again" in said.err


@pytest.mark.parametrize(
    ("output", "fault"),
    [
        (lambda tmp: tmp, "is a folder; give the name of a file in it"),
        (
            lambda tmp: tmp / "file" / "report.html",
            "something exists where a file or folder is to be created",
        ),
        (lambda tmp: "/dev/full", "No space left on device; free some space there"),
    ],
    ids=["folder", "below a file", "full"],
)
def test_a_report_that_cannot_be_written_is_refused(output, fault, trained, tmp_path):
    (tmp_path / "file").touch()
    said = invoke("report", trained.flow, "--output", output(tmp_path))
    assert said.status == 2
    assert fault in said.err
    assert len(said.err.splitlines()) == 1


def test_a_report_is_written_through_a_link(tmp_path):
    (tmp_path / "link.html").symlink_to(tmp_path / "report.html")
    write_report(tmp_path / "link.html", ReportData(title="a page", lead=""))
    assert "a page" in (tmp_path / "report.html").read_text()
    assert (tmp_path / "link.html").is_symlink()
