"""Pictures while training: their milestones, their share of the time, and what happens to one that fails."""

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from harness.one_weight import Remembering
from PIL import Image

from lediflow.disk import sha256_of
from lediflow.engine.group import Group
from lediflow.engine.protocol import EngineConfig
from lediflow.engine.ranks import Ranks
from lediflow.flow.noise import SampleNoise
from lediflow.models import LatentSamplerSpec, build_model
from lediflow.models.auxiliary import Prior
from lediflow.nn.specs import LevelSpec
from lediflow.sampling.pictures import picture_arrays
from lediflow.training.clock import Clock
from lediflow.training.pictures import monitor
from lediflow.training.pictures.chain import Display, between, sigma_map
from lediflow.training.pictures.drawings import Drawing
from lediflow.training.pictures.monitor import PictureMaker, TrainingPictures
from lediflow.training.pictures.schedule import PicturesConfig, TimeLimit, is_due

ROW = ("a row", np.arange(4 * 8 * 8 * 3, dtype=np.uint8).reshape(4, 8, 8, 3))


class TestClocks:
    def milestones(self, batch, every, images):
        clock, found = Clock(images, batch), []
        while not clock.is_finished:
            clock.advance()
            found += [clock.images_seen] * is_due(clock, every)
        return found

    def test_are_powers_of_two_first_then_multiples(self):
        assert self.milestones(256, 8192, 30_000) == [1024, 2048, 4096, 8192, 16384, 24576]

    def test_of_a_large_batch_are_the_steps_that_cross_them(self):
        assert self.milestones(3000, 10_000, 21_000) == [3000, 6000, 9000, 12_000, 21_000]

    def test_do_not_exist_where_pictures_are_off(self):
        assert self.milestones(256, 0, 5000) == []


class TestTime:
    """A training of steps of 0.1 s and 10 images, whose pictures take a second."""

    def run(self, share, seconds, cost=1.0):
        now = 0.0
        limit = TimeLimit(share, lambda: now)
        limit.begin(0)
        made, shares = [], []
        for step in range(1, int(10 * seconds)):
            now += 0.1
            if limit.allows_pictures(10 * step):
                now += cost
                limit.note(cost)
                made.append(now)
            shares.append(limit.share_spent)
        return made, shares

    def test_of_pictures_never_exceeds_its_share(self):
        made, shares = self.run(0.02, 600)
        assert max(shares) <= 0.02
        assert len(made) == 12  # no more are put off than has to be

    def test_may_exceed_it_where_pictures_become_dearer_but_only_once(self):
        limit = TimeLimit(0.02, lambda: 100.0)
        limit.began = (0.0, 0)
        assert limit.allows_pictures(10_000)
        limit.note(5.0)
        assert not limit.allows_pictures(10_000)

    def test_of_one_that_waited_for_a_disk_is_not_expected_again(self):
        limit = TimeLimit(0.02, lambda: 1000.0)
        limit.began = (0.0, 0)
        for seconds in (1.0, 1.0, 10.0):
            limit.note(seconds)
        assert limit.allows_pictures(10_000)  # 12 s and 1 s of 20 s

    def test_is_not_limited_by_a_share_of_one(self):
        made, _ = self.run(1.0, 10)
        assert len(made) == 99

    def test_of_the_first_pictures_is_assumed_from_that_of_the_steps(self):
        made, _ = self.run(0.02, 600, cost=0.0)
        # 0.5 s and 64 images at 0.01 s each, 50 times
        assert made[0] == pytest.approx(50 * (0.5 + 64 * 0.01), abs=0.2)


class StandInEngine:
    """Ranks that agree without a group; rank 1 has no weights."""

    def __init__(self, rank=0, answers=None):
        self.ranks = (
            Ranks(rank=rank, world_size=1) if rank == 0 else Ranks(rank=rank, local_rank=rank, world_size=2)
        )
        self.config, self.device = EngineConfig(device="cpu"), torch.device("cpu")
        self.group = Group(Ranks()) if answers is None else Answers(answers)
        self.gathered = 0

    def averaged_weights(self):
        self.gathered += 1
        return {} if self.ranks.is_first else None


class Answers:
    """What rank 0 said, for another rank."""

    def __init__(self, answers):
        self.answers = answers

    def broadcast(self, thing):
        assert thing is None  # only rank 0's counts
        return self.answers.pop(0)


class OneModel:
    """A chain and a scene of nothing."""

    models = (torch.nn.Identity(),)

    @property
    def chain(self):
        return self


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    """Makes pictures of two rows of bytes, by functions that a test may replace."""
    found = TrainingPictures(StandInEngine(), Remembering(), PicturesConfig(time_share=1), retry_images=8)
    found.maker = PictureMaker(None, lambda model, stage, images_seen: OneModel(), tmp_path / "pictures")
    found.drawings = {
        name: lambda name=name: Drawing([ROW], f"About {name}.") for name in ("samples", "heldout")
    }
    monkeypatch.setattr(monitor, "drawings", lambda scene: found.drawings)
    monkeypatch.setattr(TrainingPictures, "averaged_model", lambda self, spec, weights: None)
    return found


def no_space():
    raise OSError(28, "No space left on device")


class TestEvent:
    def test_names_each_file_with_its_hash_and_caption(self, tmp_path, pictures):
        seconds = pictures.make(None, 4096)
        [(seen, values)] = pictures.tracker.of("pictures")
        assert (seen, values["seconds"]) == (4096, seconds)
        assert values["pictures"].keys() == {"samples", "heldout"}
        about = values["pictures"]["samples"]
        assert about["file"] == "pictures/000000004096/samples.png"
        assert about["sha256"] == sha256_of(tmp_path / about["file"])
        assert about["caption"] == "About samples."

    def test_has_8_bit_files_whose_pixels_are_the_bytes_of_the_rows(self, tmp_path, pictures):
        pictures.make(None, 4096)
        picture = Image.open(tmp_path / "pictures/000000004096/samples.png")
        assert (picture.mode, picture.text["Description"]) == ("RGB", "About samples.")
        pixels = np.asarray(picture)
        for column, expected in enumerate(ROW[1]):
            left = 150 + column * 100
            assert (pixels[:96, left : left + 96] == expected.repeat(12, axis=0).repeat(12, axis=1)).all()


class TestFailure:
    def test_leaves_one_picture_out_and_is_logged_once(self, pictures, caplog):
        pictures.drawings["samples"] = no_space
        for seen in (1024, 2048):
            pictures.make(None, seen)
        recorded = [sorted(values["pictures"]) for _, values in pictures.tracker.of("pictures")]
        assert recorded == [["heldout"], ["heldout"]]
        [message] = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
        assert "the picture samples at 1024 images could not be made (OSError" in message
        assert "No space left on device" in message

    def test_of_all_of_them_leaves_no_event_and_no_file(self, tmp_path, pictures):
        pictures.drawings = dict.fromkeys(pictures.drawings, no_space)
        pictures.make(None, 1024)
        assert pictures.tracker.events == []
        assert list(tmp_path.rglob("*.png")) == []

    def test_to_write_any_leaves_no_folder(self, tmp_path, pictures, monkeypatch):
        monkeypatch.setattr("pathlib.Path.replace", lambda self, target: no_space())
        pictures.make(None, 1024)
        assert pictures.tracker.events == []
        assert not (tmp_path / "pictures/000000001024").exists()

    def test_of_the_model_is_one_too(self, pictures, monkeypatch, caplog):
        def out_of_memory(self, spec, weights):
            raise torch.OutOfMemoryError("CUDA out of memory")

        monkeypatch.setattr(TrainingPictures, "averaged_model", out_of_memory)
        pictures.make(None, 1024)
        assert "OutOfMemoryError: CUDA out of memory" in caplog.text

    def test_to_hold_the_run_folder_writes_nothing(self, tmp_path, pictures):
        pictures.holds = lambda: False
        pictures.make(None, 1024)
        assert list(tmp_path.rglob("*.png")) == []


class TestTooExpensive:
    @pytest.fixture
    def late(self, pictures, caplog):
        caplog.set_level(logging.INFO)
        pictures.limit.share, pictures.limit.began = 0.02, (pictures.limit.seconds(), 0)
        return pictures

    def test_they_are_put_off_and_this_is_said_once_but_not_at_the_end(self, late, caplog):
        late.make(None, 512, is_last=True)
        assert caplog.records == []
        for seen in (1024, 2048):
            late.make(None, seen)
        assert late.tracker.events == [] and late.engine.gathered == 0
        assert [record.getMessage() for record in caplog.records] == [
            "no pictures at 1024 images: they would take more than 2 % of the training time so far "
            "(train.pictures.time_share)"
        ]

    def test_they_are_tried_again_at_every_point_of_the_curves_and_not_forgotten(self, late):
        clock = Clock(10_000, 4, images_seen=1024)
        assert late.are_due(clock, is_last=False)
        late.make(None, clock.images_seen)
        due = []
        for _ in range(4):
            clock.advance()
            due.append(late.are_due(clock, is_last=False))
        assert due == [False, True, False, True]
        late.limit.share = 1
        late.make(None, clock.images_seen)
        assert [seen for seen, _ in late.tracker.of("pictures")] == [1040]
        clock.advance(), clock.advance()
        assert not late.are_due(clock, is_last=False)


class TestOtherRanks:
    def test_gather_weights_exactly_where_rank_0_decides_so_and_do_nothing_else(self, pictures):
        pictures.engine = StandInEngine(rank=1, answers=[True, False, True])
        for seen in (1024, 2048, 4096):
            pictures.make(None, seen)
        assert pictures.engine.gathered == 2
        assert pictures.tracker.events == []

    def test_have_the_same_milestones_after_pictures_were_put_off(self, pictures):
        pictures.engine = StandInEngine(rank=1, answers=[False])
        pictures.make(None, 1024)
        assert pictures.are_due(Clock(10_000, 4, images_seen=1032), is_last=False)


def test_the_averaged_model_computes_with_the_given_weights_and_draws_no_random_numbers():
    """The process's random numbers are those of a run without pictures."""
    spec = LatentSamplerSpec(latent_channels=2, levels=[LevelSpec(width=8, depth=1, head_dim=8)])
    model = build_model(spec)
    found = TrainingPictures(StandInEngine(), Remembering(), PicturesConfig(), retry_images=8)
    before = torch.random.get_rng_state()
    copy = found.averaged_model(spec, {**model.state_dict()})
    assert torch.equal(torch.random.get_rng_state(), before)
    w = SampleNoise(0).normal(torch.arange(2), "w", (2, 4, 4))
    with torch.no_grad():
        assert torch.equal(copy(w, 0.5), model.eval()(w, 0.5))
    assert not any(weight.requires_grad for weight in copy.parameters())


def test_a_run_without_a_maker_or_with_interval_0_has_no_pictures(pictures):
    clock = Clock(1024, 1024, images_seen=1024)
    assert pictures.are_due(clock, is_last=True)
    assert not replace(pictures, config=PicturesConfig(every_images=0)).are_due(clock, is_last=True)
    assert not replace(pictures, maker=None).are_due(clock, is_last=True)


class TestDisplay:
    def images(self, channels):
        return SampleNoise(0).normal(torch.arange(2), "image", (channels, 4, 4))

    @pytest.mark.parametrize("channels", [1, 3])
    def test_shows_pixels_as_sampling_writes_them(self, channels):
        images = self.images(channels)
        assert np.array_equal(Display()(images), picture_arrays(images))

    @pytest.mark.parametrize(("channels", "shown"), [(4, 3), (3, 3), (2, 1), (1, 1)])
    def test_shows_the_first_channels_of_latents_without_their_codec_and_says_so(self, channels, shown):
        display, latents = Display("sd2_vae"), self.images(channels)
        assert np.array_equal(display(latents), picture_arrays(latents[:, :shown] / 3))
        assert "sd2_vae, not decoded" in display.note

    def test_decodes_latents_where_the_codec_is_at_hand(self):
        display = Display(
            "taesd", lambda latents: latents[:, :3].repeat_interleave(2, -1).repeat_interleave(2, -2)
        )
        assert display(self.images(4)).shape == (2, 8, 8, 3)
        assert display.note == " Decoded by taesd."

    def test_refuses_values_that_are_not_finite(self):
        with pytest.raises(ValueError, match="not finite"):
            Display()(torch.full((1, 1, 2, 2), torch.nan))

    def test_maps_sigma_to_one_colour_a_pixel(self):
        prior = Prior(torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 4, 4))
        colours = sigma_map(prior)
        assert colours.shape == (2, 4, 4, 3) and len(np.unique(colours.reshape(-1, 3), axis=0)) == 1


def test_noise_between_two_draws_is_as_strong_as_they_are():
    first, last = SampleNoise(0).normal(torch.arange(2), "w", (50_000,))
    points = between(first, last, frames=5, is_noise=True)
    assert points.std(dim=1).tolist() == pytest.approx([1.0] * 5, abs=0.02)  # 4 standard errors
    line = between(first, last, frames=5, is_noise=False)
    assert torch.allclose(line[2], (first + last) / 2)
    for found in (points, line):
        assert torch.allclose(found[0], first) and torch.allclose(found[-1], last, atol=1e-6)
