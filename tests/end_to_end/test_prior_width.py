"""stage.prior_widening=auto, the default: found once, kept by the run, used wherever the run is."""

import json
import math
import shutil
from dataclasses import replace
from unittest import mock

import pytest
import torch
from harness.commands import invoke, succeed
from safetensors.torch import load_file

from lediflow.config.building.inputs import stage_options
from lediflow.config.building.pipeline import load_pipeline
from lediflow.data.shards.reader import ShardReader
from lediflow.data.streams.batch import each_once
from lediflow.data.streams.order import samples_of
from lediflow.flow.noise import SampleNoise
from lediflow.flow.widening import FACTOR, FACTOR_SCALED, LEAST, MEAN_LOG, WIDEST
from lediflow.models import load_model
from lediflow.tracking.event_log import read_events

HELD_OUT = 0.3
YOUNG = ("prior_widening", "prior_scale")
CONTINUED = "is widened by {:g} after scaling by 3, as when the run began"


@pytest.fixture(scope="module")
def trained(trained, tmp_path_factory):
    """Auxiliary model and sampler that have not seen the images that are held out here."""
    root = tmp_path_factory.mktemp("held_out")
    for name in ("shards", "latents", "baseline"):
        (root / name).symlink_to(trained.root / name)
    commands = {
        name: tuple(word.replace(str(trained.root), str(root)) for word in command)
        for name, command in trained.commands.items()
    }
    for name in ("auxiliary", "sampler"):
        succeed(*commands[name], f"data.held_out_fraction={HELD_OUT}")
    return replace(trained, root=root, commands=commands)


def command_of(trained, folder, *options):
    return (
        *trained.commands["flow"],
        f"run={folder}",
        f"data.held_out_fraction={HELD_OUT}",
        *options,
    )


@pytest.fixture(scope="module")
def automatic(trained, tmp_path_factory):
    """A run that was interrupted after two steps and continued: its folder, and what both starts said."""
    folder = tmp_path_factory.mktemp("automatic") / "run"
    command = command_of(trained, folder)
    return folder, [succeed(*command, "train.images=32").err, succeed(*command).err]


def facts_of(folder):
    return json.loads((folder / "export/config.json").read_text())


def weights_of(folder):
    return (folder / "export/model.safetensors").read_bytes()


def spread_by_hand(trained):
    """Typical sigma and residual over all pixels at once."""
    auxiliary, reader = load_model(trained.auxiliary / "export").eval(), ShardReader.open(trained.latents)
    held_out = samples_of("heldout", reader.index.table["key"], HELD_OUT)
    (batch,) = each_once(reader, held_out, 99)
    with torch.no_grad():
        mean, logvar = auxiliary.encode(batch.images)
        z = mean + (logvar / 2).exp() * SampleNoise(0).normal(batch.ids, "posterior", tuple(mean.shape[1:]))
        prior = auxiliary.decode(z)
    sigma = (0.5 * prior.logvar.double()).exp()
    distance = torch.maximum((batch.images - prior.mean).abs(), LEAST * sigma)
    residual = distance.log().mean().exp().item() / math.exp(MEAN_LOG)
    return sigma.log().mean().exp().item(), residual, len(held_out)


def test_it_is_measured_on_held_out_images_with_latents_as_training_draws_them(automatic, trained):
    folder, (first, _) = automatic
    about = json.loads((folder / "prior_width.json").read_text())
    sigma, residual, images = spread_by_hand(trained)
    assert about["sigma"] == pytest.approx(sigma, rel=1e-5)
    assert about["residual"] == pytest.approx(residual, rel=1e-5)
    assert (about["images"], about["split"], about["factor"]) == (images, "heldout", FACTOR_SCALED)
    assert about["prior_widening"] == pytest.approx(
        min(FACTOR_SCALED * max(sigma, residual), WIDEST), rel=0.05
    )
    assert f"on {images} held-out images" in first


def test_the_width_is_in_file_export_checkpoint_and_log_and_the_options_keep_auto(automatic):
    folder, (_, second) = automatic
    about, facts = json.loads((folder / "prior_width.json").read_text()), facts_of(folder)
    assert facts["prior_width"] == about
    assert facts["prior_widening"] == about["prior_widening"]
    # what `checkpoint export` and `evaluate --watch` go by
    for checkpoint in (folder / "checkpoints").iterdir():
        kept = json.loads((checkpoint / "progress.json").read_text())["export"]
        assert (kept["prior_widening"], kept["prior_width"]) == (about["prior_widening"], about)
    assert facts["identity"]["stage"]["prior_widening"] == "auto"
    assert "prior_widening: auto" in (folder / "config.yaml").read_text()
    assert CONTINUED.format(about["prior_widening"]) in second
    (event,) = [event for event in read_events(folder / "events.jsonl") if event["event"] == "prior_width"]
    assert {name: event[name] for name in about} == about


def test_an_interrupted_run_ends_like_an_uninterrupted_one(automatic, trained, tmp_path):
    folder, _ = automatic
    succeed(*command_of(trained, tmp_path))
    assert weights_of(tmp_path) == weights_of(folder)


@pytest.fixture
def early(automatic, tmp_path):
    """A copy of the run as it is when it is killed before its first checkpoint."""
    shutil.copytree(automatic[0], tmp_path / "run")
    for name in ("checkpoints", "export", "averages"):
        shutil.rmtree(tmp_path / "run" / name, ignore_errors=True)
    return tmp_path / "run"


def test_a_run_killed_before_its_first_checkpoint_reads_its_width_from_the_file(early, trained):
    """A number that no measurement gives shows that there was none."""
    file = early / "prior_width.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "prior_widening": 0.123}))
    assert "by 0.123 after scaling by 3, as measured before" in succeed(*command_of(trained, early)).err
    assert facts_of(early)["prior_widening"] == 0.123


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"parent": "another"}, "was measured with another parent, other data"),
        ({"images": "many"}, "not a whole number"),
    ],
)
def test_a_file_that_is_of_another_parent_or_damaged_is_measured_again(
    early, automatic, trained, change, said
):
    file = early / "prior_width.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "prior_widening": 0.123, **change}))
    assert said in succeed(*command_of(trained, early)).err
    assert file.read_text() == (automatic[0] / "prior_width.json").read_text()
    assert weights_of(early) == weights_of(automatic[0])


@pytest.mark.parametrize("content", ["", "{}", '{"parent": "of another run"}'])
def test_a_file_that_cannot_be_used_is_made_again_from_the_checkpoint(automatic, trained, tmp_path, content):
    shutil.copytree(automatic[0], tmp_path / "run")
    file = tmp_path / "run/prior_width.json"
    whole = file.read_text()
    file.write_text(content)
    succeed(*command_of(trained, tmp_path / "run", "train.images=80"))
    assert file.read_text() == whole


def test_without_held_out_samples_it_warns_that_memorising_is_not_detected(trained, tmp_path):
    said = succeed(*command_of(trained, tmp_path, "data.held_out_fraction=0", "train.images=16")).err
    assert "was measured on training images" in said
    assert facts_of(tmp_path)["prior_width"]["split"] == "train"


@pytest.mark.parametrize(("fraction", "split"), [(0, "train"), (0.1, "heldout")])
def test_images_that_the_parent_has_seen_do_not_count_as_held_out(trained, tmp_path, fraction, split):
    parent = (*trained.commands["auxiliary"], f"run={tmp_path}/parent", "train.images=16")
    succeed(*parent, f"data.held_out_fraction={fraction}")
    said = succeed(*command_of(trained, tmp_path / "run", f"parent={tmp_path}/parent", "train.images=16")).err
    assert (
        f"was trained with data.held_out_fraction={fraction}, this run with {HELD_OUT}: it has seen" in said
    )
    about = json.loads((tmp_path / "run/prior_width.json").read_text())
    keys = ShardReader.open(trained.latents).index.table["key"]
    unseen = len(samples_of("heldout", keys, fraction)) or len(keys)
    assert (about["split"], about["images"]) == (split, unseen)
    assert ("measured on training images" in said) == (split == "train")


@pytest.mark.parametrize("images", [64, 96], ids=["finished", "to be continued"])
def test_another_width_is_another_run(automatic, trained, images):
    said = invoke(*command_of(trained, automatic[0], f"train.images={images}", "stage.prior_widening=0.3"))
    assert said.status == 2
    assert "(stage.prior_widening: auto, now 0.3)" in said.err


def test_the_report_shows_the_width_and_its_origin(automatic, trained, tmp_path):
    folder, _ = automatic
    width = f"{facts_of(folder)['prior_widening']:g}, sigma times 3 (auto: {FACTOR_SCALED:g} x the larger of"
    twice = folder.parent / "." / folder.name / ""
    said = succeed("report", folder, trained.baseline, twice, "--output", tmp_path / "page.html")
    assert said.out.count("width added to the prior") == 1
    assert f"{folder}: width added to the prior {width}" in said.out
    assert f"{trained.baseline}: width" not in said.out
    assert width in (tmp_path / "page.html").read_text()


def test_a_prior_that_is_not_scaled_is_widened_by_more(automatic, trained, tmp_path):
    """The scale is an option of its own; it is kept as the width is, and the start of samples has both."""
    run = tmp_path / "unscaled"
    succeed(*command_of(trained, run, "stage.prior_scale=1", "train.images=32"))
    said = succeed(*command_of(trained, run, "stage.prior_scale=1")).err
    facts, about = facts_of(run), json.loads((run / "prior_width.json").read_text())
    width = min(FACTOR * max(about["sigma"], about["residual"]), WIDEST)
    assert facts["prior_widening"] == pytest.approx(width, rel=0.05) and facts["prior_scale"] == 1
    assert CONTINUED.format(facts["prior_widening"]).replace(" after scaling by 3", "") in said
    assert_starts_from(run, trained, scale=1)
    refused = invoke(*command_of(trained, run, "stage.prior_scale=2", "train.images=96"))
    assert "(stage.prior_scale: nothing, now 2)" in refused.err


def test_a_dry_run_says_that_it_will_be_measured(trained, tmp_path):
    said = succeed(*command_of(trained, tmp_path / "run", "dry_run=true"))
    assert "auto (measured when the run begins)" in said.out


@pytest.mark.parametrize(("width", "differs"), [("0.3", True), ("auto", False)])
def test_a_warm_start_from_another_width_is_logged(automatic, trained, tmp_path, width, differs):
    asked = (f"warm_start={automatic[0]}", f"stage.prior_widening={width}", "train.images=16")
    said = succeed(*command_of(trained, tmp_path, *asked)).err
    assert ("this run's is widened by 0.3" in said) == differs


def test_samples_start_from_the_widened_prior(automatic, trained):
    assert_starts_from(automatic[0], trained, scale=3)


def assert_starts_from(folder, trained, scale):
    width = facts_of(folder)["prior_widening"]
    pipeline = load_pipeline(str(folder), str(trained.sampler), device="cpu")
    z = torch.zeros(1, *pipeline.velocity.spec.latent_shape)
    with torch.no_grad():
        own = pipeline.auxiliary.decode(z)
    torch.testing.assert_close(pipeline.prior(z).logvar.exp(), scale**2 * own.logvar.exp() + width**2)


class TestARunOfBefore:
    """It began when the default was 0, which went without saying."""

    @pytest.fixture(scope="class")
    def before(self, trained, tmp_path_factory):
        folder = tmp_path_factory.mktemp("before") / "run"

        def unsaid(command):
            return {name: value for name, value in stage_options(command).items() if name not in YOUNG}

        with mock.patch("lediflow.config.building.inputs.stage_options", unsaid):
            succeed(*command_of(trained, folder, "stage.prior_widening=0"))
        assert "prior_widening" not in facts_of(folder)["identity"]["stage"]
        return folder

    @pytest.fixture(scope="class")
    def uninterrupted(self, trained, tmp_path_factory):
        """Weights of a run of today's release that names the width 0 and trains as long as the continued runs."""
        folder = tmp_path_factory.mktemp("uninterrupted")
        succeed(*command_of(trained, folder, "train.images=96", "stage.prior_widening=0"))
        return load_file(folder / "checkpoints/000000000096/model.safetensors")

    @pytest.fixture
    def run(self, before, tmp_path):
        shutil.copytree(before, tmp_path / "run")
        return tmp_path / "run"

    @pytest.mark.parametrize("said", [(), ("stage.prior_widening=0",)], ids=["not named", "0"])
    def test_is_finished_for_the_same_command(self, run, trained, said):
        assert "nothing to do" in succeed(*command_of(trained, run, *said)).err

    @pytest.mark.parametrize(
        "said",
        [(), ("stage.prior_widening=0",), ("stage.prior_widening=0", "stage.prior_scale=3")],
        ids=["not named", "0", "scaled"],
    )
    def test_continues_with_0(self, run, uninterrupted, trained, said):
        heard = succeed(*command_of(trained, run, "train.images=96", *said)).err
        assert ("its prior is neither widened nor scaled" in heard) == (said != ("stage.prior_widening=0",))
        facts = facts_of(run)
        assert facts["prior_widening"] == 0 and "prior_widening" not in facts["identity"]["stage"]
        assert not (run / "prior_width.json").exists()
        last = load_file(run / "checkpoints/000000000096/model.safetensors")
        assert all(torch.equal(last[name], weights) for name, weights in uninterrupted.items())

    def test_takes_no_other_width(self, run, trained):
        said = invoke(*command_of(trained, run, "train.images=96", "stage.prior_widening=0.3"))
        assert "(stage.prior_widening: nothing, now 0.3)" in said.err
