"""Pictures while training: made by every stage, equal after a restart, and without any effect on what is learned."""

import functools
from pathlib import Path

import numpy as np
import pytest
from harness.commands import invoke, succeed
from harness.curves import assert_same_tensors, events, newest_state, weights
from PIL import Image

from lediflow.disk import sha256_of
from lediflow.tracking.event_log import standing_events

OPTIONS = ["train.pictures.time_share=1", "train.pictures.every_images=32"]
CLOCKS = [32, 64]
STAGES = {
    "auxiliary": {"samples", "heldout", "interpolation"},
    "flow": {"samples", "heldout", "interpolation"},
    "baseline": {"samples", "interpolation"},
    "sampler": {"samples", "interpolation"},
}


def command_of(trained, stage, run, *more):
    words = [word for word in trained.commands[stage] if not word.startswith("run=")]
    return [*words, f"run={run}", *OPTIONS, *more]


def files(run):
    """The bytes of all pictures by name, which the events name too, with the right hashes."""
    standing = [event for event in standing_events(run / "events.jsonl") if event["event"] == "pictures"]
    named = {about["file"]: about for event in standing for about in event["pictures"].values()}
    assert len(named) == sum(len(event["pictures"]) for event in standing)
    for file, about in named.items():
        assert sha256_of(run / file) == about["sha256"]
        assert "Averaged weights at" in about["caption"]
    return {file: (run / file).read_bytes() for file in named}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("pictures")


@pytest.fixture(scope="module")
def run_of(trained, root):
    """A finished run with pictures of a stage, made when it is first needed."""

    @functools.cache
    def made(stage):
        succeed(*command_of(trained, stage, root / stage))
        return root / stage

    return made


@pytest.fixture(params=STAGES)
def stage(request):
    return request.param


@pytest.fixture
def run(run_of, stage):
    return run_of(stage)


def test_every_stage_has_its_pictures_at_every_clock(run, stage):
    expected = {f"pictures/{seen:012d}/{name}.png" for seen in CLOCKS for name in STAGES[stage]}
    assert files(run).keys() == expected
    assert {str(path.relative_to(run)) for path in run.rglob("pictures/**/*.png")} == expected
    for event in events(run, "pictures"):
        assert event["seconds"] > 0 and 0 < event["share"] <= 1


def test_a_picture_is_8_bit_and_has_contrast(run):
    for file in files(run):
        picture = Image.open(run / file)
        pixels = np.asarray(picture)
        assert pixels.dtype == np.uint8 and picture.mode == "RGB"
        assert pixels[:, 150:].std() > 10  # neither black nor white


def test_a_run_with_pictures_learns_what_one_without_learns_bit_for_bit(trained, run, stage):
    found, expected = (newest_state(folder) for folder in (run, trained.root / stage))
    assert_same_tensors(found, expected)
    assert_same_tensors(weights(run), weights(trained.root / stage))


def test_a_continued_run_makes_the_same_pictures_and_none_twice(trained, run_of, root):
    """Stopped at its first milestone and continued: the standing event and its files stay as they are."""
    again = root / "again"
    succeed(*command_of(trained, "flow", again, "train.images=32"))
    first = {path: path.stat().st_mtime_ns for path in again.rglob("pictures/**/*.png")}
    said = succeed(*command_of(trained, "flow", again))
    assert "continuing at 32 of 64" in said.err
    assert {path: path.stat().st_mtime_ns for path in first} == first
    assert files(again) == files(run_of("flow"))
    assert [event["images_seen"] for event in events(again, "pictures")] == CLOCKS
    assert_same_tensors(newest_state(again), newest_state(trained.flow))


class TestNamedRuns:
    @pytest.fixture(scope="class")
    def named(self, trained, root):
        succeed(*command_of(trained, "flow", root / "named", f"train.pictures.sampler={trained.sampler}"))
        return root / "named"

    def test_a_flow_starts_its_samples_from_a_latent_sampler(self, trained, run_of, named):
        found, plain = files(named), files(run_of("flow"))
        assert {Path(file).stem for file in plain if found[file] != plain[file]} == {"samples"}
        assert "mapped to z by the latent sampler" in caption(named, "samples")
        assert_same_tensors(weights(named), weights(trained.flow))

    def test_samples_from_w_are_the_first_images_of_the_command_sample(self, trained, named, tmp_path):
        """Row 2 of the picture at the end, with the weights that are exported."""
        succeed(
            "sample", f"run={named}", f"sampler={trained.sampler}", f"output={tmp_path}/s", "count=8",
            "precision=float32", "runtime=eager", "device=cpu",
        )  # fmt: skip
        pixels = np.asarray(Image.open(named / "pictures/000000000064/samples.png"))
        for column in range(8):
            expected = np.asarray(Image.open(tmp_path / f"s/{column:06d}.png"))
            left = 150 + 100 * column
            assert np.array_equal(pixels[100:196:6, left : left + 96 : 6, 0], expected)

    def test_a_latent_sampler_shows_what_a_flow_makes_of_its_latents(self, trained, run_of, root):
        succeed(*command_of(trained, "sampler", root / "with-flow", f"train.pictures.flow={trained.flow}"))
        assert "the flow's image of a draw (midpoint 2)" in caption(root / "with-flow", "samples")
        plain, shown = (
            Image.open(run / "pictures/000000000064/samples.png")
            for run in (run_of("sampler"), root / "with-flow")
        )
        assert shown.height == 2 * plain.height

    @pytest.mark.parametrize(
        ("stage", "option", "message"),
        [
            ("flow", "sampler={root}/baseline", "is a run of stage=flow; give a run of stage=latent_sampler"),
            ("flow", "sampler={root}/nothing", "there is no run there; train it"),
            ("baseline", "sampler={root}/sampler", "is for stage=flow with a learned prior"),
            ("sampler", "flow={root}/baseline", "was trained on the auxiliary model None"),
            ("auxiliary", "codec_path={root}", "holds pixels; leave it out"),
        ],
    )
    def test_that_does_not_fit_is_refused_before_the_first_step(
        self, trained, tmp_path, stage, option, message
    ):
        option = option.format(root=trained.root)
        said = invoke(*command_of(trained, stage, tmp_path / "run", f"train.pictures.{option}"))
        assert said.status == 2
        assert message in said.err


def test_neither_a_lost_run_nor_a_folder_in_the_way_stops_a_continued_run(trained, tmp_path):
    run = tmp_path / "run"
    succeed(*command_of(trained, "flow", run, "train.images=32"))
    (run / "pictures/000000000096").write_text("in the way")
    more = ["train.images=96", f"train.pictures.sampler={tmp_path}/lost"]
    said = succeed(*command_of(trained, "flow", run, *more))
    assert "pictures are made without it: the sampler of the pictures is to be read from" in said.err
    assert said.err.count("the picture samples at 96 images could not be made") == 1
    assert [event["images_seen"] for event in events(run, "pictures")] == CLOCKS


def caption(run, name):
    return events(run, "pictures")[-1]["pictures"][name]["caption"]


def test_a_flow_map_is_run_by_jumps(trained, run_of, root):
    more = ["stage.objective=flow_map", f"teacher={trained.flow}", "stage.teacher_steps=2"]
    succeed(*command_of(trained, "flow", root / "map", *more))
    assert files(root / "map").keys() == files(run_of("flow")).keys()
    assert "(jump 2)" in caption(root / "map", "samples")
