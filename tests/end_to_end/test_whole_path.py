"""Pictures -> shards -> latents -> three stages and the baseline -> samples -> metrics -> one page.

The trainings are shared by the session (tests/conftest.py); all commands run as typed.
"""

import json
import math
import re
from dataclasses import dataclass

import numpy as np
import pytest
from harness.commands import Said, invoke, succeed
from PIL import Image

from lediflow.models import load_model
from lediflow.sampling.pictures import picture_files

COUNT = 6
TRAININGS = ("auxiliary", "flow", "baseline", "sampler")


@dataclass(frozen=True)
class Call:
    """A command, and what it said when it did the work."""

    command: tuple[str, ...]
    said: Said


@pytest.fixture(scope="module")
def sampled(trained):
    command = ("sample", f"run={trained.flow}", f"sampler={trained.sampler}", f"count={COUNT}", "steps=2")
    return Call(command, succeed(*command))


@pytest.fixture(scope="module")
def evaluated(trained):
    """Both methods, measured on a handful of images."""
    common = (
        f"data.path={trained.latents}", f"paths.runs={trained.root}", "count=8", "reference_count=16",
        "step_counts=[0,1]", "timed_batch=1",
    )  # fmt: skip
    learned = ("evaluate", f"run={trained.flow}", f"sampler={trained.sampler}", *common)
    gaussian = ("evaluate", f"run={trained.baseline}", *common)
    return {command[1]: Call(command, succeed(*command)) for command in (learned, gaussian)}


def pictures(folder):
    return np.stack([np.asarray(Image.open(path)) for path in picture_files(folder)])


def results(run):
    return json.loads((run / "results" / "results.json").read_text())


@pytest.mark.parametrize("name", TRAININGS)
def test_every_training_writes_a_complete_run_folder(trained, name):
    folder = trained.root / name
    assert {"config.yaml", "events.jsonl", "checkpoints", "export"} <= {
        path.name for path in folder.iterdir()
    }
    facts = json.loads((folder / "export" / "config.json").read_text())
    assert facts["images_seen"] == 64
    assert facts["seed"] == 0
    assert load_model(folder / "export").spec is not None


def test_dependent_runs_pin_their_parents_weights(trained):
    parents = [
        json.loads((trained.root / name / "export" / "config.json").read_text())["parent"]
        for name in TRAININGS
    ]
    weights = json.loads((trained.auxiliary / "export" / "config.json").read_text())["weights_sha256"]
    assert [parent and parent["sha256"] for parent in parents] == [None, weights, None, weights]


REUSED = {"shards": "already prepared: 48 images", "latents": "already encoded: 48 samples"}


@pytest.mark.parametrize("name", ["shards", "latents", *TRAININGS])
def test_a_finished_step_is_reused_and_says_so(trained, name):
    folder = trained.root / name
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    said = succeed(*trained.commands[name])
    assert REUSED.get(name, "is finished (64 images): nothing to do") in said.out + said.err
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("name", ["shards", "latents"])
def test_a_finished_set_is_compared_with_its_hashes_on_demand(trained, name):
    assert (
        "verified: its shard has the SHA-256 that index.json gives"
        in succeed(*trained.commands[name], "verify=true").out
    )


class TestSamples:
    def test_are_numbered_pictures_that_differ(self, sampled, trained):
        drawn = pictures(trained.flow / "samples")
        assert drawn.shape == (COUNT, 16, 16)
        assert len({picture.tobytes() for picture in drawn}) == COUNT
        assert f"sampled: {COUNT} images with 4 evaluations" in sampled.said.out  # midpoint takes two a step

    def test_are_reused(self, sampled):
        assert f"already sampled: {COUNT} images" in succeed(*sampled.command).out

    def test_do_not_depend_on_how_many_are_drawn_at_once(self, sampled, trained, tmp_path):
        succeed(*sampled.command, "count=4", "batch_size=3", f"output={tmp_path}")
        again = pictures(tmp_path).astype(int)
        assert np.abs(again - pictures(trained.flow / "samples")[:4]).max() <= 1  # a byte's rounding

    def test_differ_between_seeds(self, sampled, trained, tmp_path):
        succeed(*sampled.command, "seed=1", f"output={tmp_path}")
        assert not (pictures(tmp_path) == pictures(trained.flow / "samples")).all(axis=(1, 2)).any()

    def test_of_an_earlier_command_are_removed(self, sampled, tmp_path):
        succeed(*sampled.command, f"output={tmp_path}")
        succeed(*sampled.command, f"output={tmp_path}", "count=2", "seed=5")
        assert [path.name for path in picture_files(tmp_path)] == ["000000.png", "000001.png"]
        assert json.loads((tmp_path / "samples.json").read_text())["count"] == 2

    def test_record_their_settings(self, sampled, trained):
        facts = json.loads((trained.flow / "samples" / "samples.json").read_text())
        assert (facts["seed"], facts["solver"], facts["steps"], facts["nfe"]) == (0, "midpoint", 2, 4)
        assert set(facts["weights"]) == {"flow", "latent_sampler"}


class TestMetrics:
    def test_are_finite_and_have_a_certificate(self, evaluated, trained):
        for run in (trained.flow, trained.baseline):
            document = results(run)
            rows = document["results"]["rows"]
            assert [(row["steps"], row["nfe"]) for row in rows] == [(0, 0), (1, 2)]
            assert all(
                math.isfinite(row[key]) for row in rows for key in ("mmd_unbiased", "frechet", "ms_per_image")
            )
            certificate = document["certificate"]
            assert {"command", "commit", "seed", "hardware", "date", "versions"} <= certificate.keys()

    def test_are_named_after_their_features(self, evaluated, trained):
        assert {row["mmd_name"] for row in results(trained.flow)["results"]["rows"]} == {
            "MMD (EfficientNet-Lite0)"
        }

    def test_are_reused(self, evaluated):
        for call in evaluated.values():
            assert "already evaluated" in succeed(*call.command).out

    def test_of_pictures_need_no_model(self, sampled, evaluated, trained, tmp_path):
        said = succeed("evaluate", f"images={trained.flow}/samples", f"reference={trained.root}/pictures/bar",
                       f"output={tmp_path}")  # fmt: skip
        assert f"on {COUNT} images" in said.out
        assert (tmp_path / "results.json").is_file()

    def test_of_a_folder_are_written_next_to_its_pictures_by_default(self, evaluated, trained, tmp_path):
        drawn = tmp_path / "drawn"
        succeed("sample", f"run={trained.baseline}", f"output={drawn}", "count=3", "steps=1")
        succeed("evaluate", f"images={drawn}", f"reference={trained.root}/pictures/disc")
        assert (drawn / "results" / "results.json").is_file()


class TestReport:
    @pytest.fixture(scope="class")
    def page(self, sampled, evaluated, trained):
        path = trained.root / "report.html"
        said = succeed(
            "report", *(trained.root / name for name in TRAININGS), "--output", path, "--title", "Shapes"
        )
        assert str(path) in said.out
        return path.read_text()

    def test_is_one_whole_file_that_needs_no_network(self, page):
        assert page.rstrip().endswith("</html>")
        addresses = re.findall(r"""(?:src|href)=["']([^"']+)""", page)
        assert [address for address in addresses if not address.startswith(("data:", "#"))] == []
        assert "<script src" not in page and "@import" not in page
        assert "default-src 'none'" in page

    def test_shows_both_methods_and_where_the_numbers_come_from(self, page, trained):
        for phrase in ("Shapes", "LeDiFlow", "Flow matching", "MMD (EfficientNet-Lite0)"):
            assert phrase in page
        assert results(trained.flow)["certificate"]["commit"][:7] in page

    def test_without_a_trained_run_says_how_to_get_one(self, trained):
        said = invoke("report", trained.root / "pictures")
        assert said.status == 2
        assert "train it: python -m lediflow.train" in said.err


def test_repeating_the_path_gives_the_same_weights(trained, tmp_path):
    """No hidden state: the same commands elsewhere give the same models, bit for bit."""
    for name, extra in (("auxiliary", ()), ("flow", (f"parent={tmp_path}/auxiliary",))):
        succeed(*trained.commands[name], f"run={tmp_path}/{name}", *extra)
        first, second = (
            folder / "export" / "model.safetensors" for folder in (trained.root / name, tmp_path / name)
        )
        assert first.read_bytes() == second.read_bytes()
