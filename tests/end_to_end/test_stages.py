"""`mode=stages` on chains with a fault made on purpose: the stage that limits the quality is named, its numbers kept.

Pictures are a cross of light under smooth waves. Two extractors look at them: a coarse one, which sees a picture's
light and shade, and a fine one, which sees its roughness. What a tiny flow leaves of noise is a fault to the second.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from harness.commands import invoke, succeed
from harness.curves import events
from PIL import Image
from torch import nn

from lediflow.compat import fix_torchvision
from lediflow.config.building.pipeline import load_pipeline
from lediflow.data.shards.reader import ShardReader
from lediflow.data.streams.batch import each_once
from lediflow.data.streams.order import samples_of
from lediflow.evaluation.images import GeneratedImages, ShardImages
from lediflow.evaluation.modes.stages.latents import ImagesFromReal, RealLatents
from lediflow.flow.noise import SampleNoise
from lediflow.models import load_model
from lediflow.sampling import SamplingConfig

COUNT, PICTURES, SIZE, HELD_OUT = 128, 320, 16, 0.25
SOURCES = ("training", "heldout", "sampler")


class Coarse(nn.Module):
    """Random functions of a picture's 4 x 4 means."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(48, 256)
        self.linear.weight.data *= 8
        self.linear.bias.data.zero_()

    def forward(self, x):
        return torch.relu(self.linear(torch.nn.functional.adaptive_avg_pool2d(x, 4).flatten(1)))


class Fine(nn.Module):
    """Differences of neighbouring pixels by random filters with zero mean, and a constant."""

    def __init__(self) -> None:
        super().__init__()
        filters = torch.randn(32, 3, 3, 3)
        self.filters = nn.Parameter(filters - filters.mean(dim=(2, 3), keepdim=True))

    def forward(self, x):
        rough = torch.nn.functional.conv2d(x, self.filters).abs().mean(dim=(2, 3))
        return torch.cat([rough, torch.ones_like(rough)], dim=1)


def waves(folder: Path, count: int, size: int) -> None:
    """Grey pictures: a cross of light that all have, and eight waves of random strength and phase."""
    folder.mkdir()
    x = np.arange(size) / size
    cross = np.cos(4 * np.pi * x)[:, None] + np.cos(4 * np.pi * x)[None]
    for number in range(count):
        random = np.random.default_rng(number)
        light = 1.2 * cross
        for down, across in ((0, 1), (1, 0), (1, 1), (0, 2), (2, 0), (1, 2), (2, 1), (2, 2)):
            phase = 2 * np.pi * (down * x[:, None] + across * x[None] + random.uniform())
            light = light + 0.5 * random.normal() * np.cos(phase)
        Image.fromarray(np.uint8(np.clip(128 + 30 * light, 0, 255))).save(folder / f"{number:04d}.png")


@dataclass(frozen=True)
class Folder:
    """Shards, extractors and runs."""

    root: Path

    def train(self, name, stage, images, *more, parent=None, shards="shards"):
        built_on = [f"parent={self.root}/{parent}"] if parent else []
        succeed("train", "experiment=smoke", "synthetic_images=0", f"data.path={self.root}/{shards}", f"stage={stage}",
                f"run={self.root}/{name}", "engine.device=cpu", f"train.images={images}", "train.global_batch=32",
                f"data.held_out_fraction={HELD_OUT}", "train.validation.every_images=800",
                "train.checkpoint.every_images=100000", *built_on, *more)  # fmt: skip

    def asked(self, flow, sampler, features, *more, shards="shards"):
        return ("mode=stages", f"run={self.root}/{flow}", f"sampler={self.root}/{sampler}", "device=cpu",
                f"data.path={self.root}/{shards}", f"count={COUNT}", f"paths.runs={self.root}", "grid.steps=[1,4]",
                "features.name=torchscript", f"features.path={self.root}/{features}.pt", f"features.size={SIZE}",
                "features.mean=[0.5,0.5,0.5]", "features.std=[0.2,0.2,0.2]", *more)  # fmt: skip

    def stages(self, name, flow, sampler, features, *more, shards="shards"):
        output = self.root / name
        succeed("evaluate", *self.asked(flow, sampler, features, *more, shards=shards), f"output={output}")
        return json.loads((output / "stages.json").read_text())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A chain whose stages were all trained, with its baseline."""
    root = tmp_path_factory.mktemp("stages")
    torch.manual_seed(0)
    for name, module in (("coarse", Coarse()), ("fine", Fine())):
        torch.jit.script(module).save(root / f"{name}.pt")
    waves(root / "pictures", PICTURES, SIZE)
    succeed(
        "prepare",
        f"source={root}/pictures",
        f"output={root}/shards",
        f"size={SIZE}",
        "mode=grey",
        "workers=1",
    )
    folder = Folder(root)
    folder.train("auxiliary", "auxiliary", 3200, "stage.beta=0.1")
    folder.train("flow", "flow", 800, "stage.prior_widening=auto", parent="auxiliary")
    folder.train("sampler", "latent_sampler", 4800, parent="auxiliary")
    folder.train("baseline", "flow", 320, "prior=gaussian")
    return folder


@pytest.fixture(scope="module")
def plain(folder):
    return folder.stages("plain", "flow", "sampler", "coarse", f"baseline={folder.root}/baseline")


class TestFaults:
    def test_a_sampler_trained_on_one_percent_of_the_images_is_named(self, folder):
        folder.train("hardly", "latent_sampler", 48, parent="auxiliary")
        verdict = folder.stages("hardly_stages", "flow", "hardly", "coarse")["verdict"]
        assert (verdict["limits"], verdict["is_certain"]) == ("sampler", True)
        assert verdict["parts"]["sampler"]["value"] > 10 * verdict["parts"]["flow"]["value"]
        assert "saw 64 images" in verdict["text"]  # two batches: a training ends with a whole one

    def test_a_prior_with_a_low_sigma_ceiling_and_no_widening_is_called_too_narrow(self, folder):
        """The latent sampler of a few seconds adds more still, and is named first."""
        narrow = ("stage.beta=100", "model.auxiliary.logvar_ceiling=-6")
        folder.train("narrow_prior", "auxiliary", 1600, *narrow)
        folder.train("narrow_flow", "flow", 1600, "stage.prior_widening=0", parent="narrow_prior")
        folder.train("narrow_sampler", "latent_sampler", 1600, parent="narrow_prior")
        found = folder.stages("narrow_stages", "narrow_flow", "narrow_sampler", "fine")
        assert "the prior is too narrow (the start is widened by s = 0" in found["verdict"]["text"]
        assert found["losses"]["prior"]["heldout"]["sigma_geometric_mean"] == pytest.approx(
            np.exp(-3), rel=0.1
        )

    def test_a_codec_that_loses_the_pictures_is_named(self, folder):
        root = folder.root
        save_codec(root / "taesd")
        waves(root / "large_pictures", 64, 32)
        succeed(
            "prepare",
            f"source={root}/large_pictures",
            f"output={root}/large",
            "size=32",
            "mode=rgb",
            "workers=1",
        )
        succeed("encode", f"source={root}/large", f"output={root}/latents", "codec.name=taesd",
                f"codec.path={root}/taesd", "device=cpu")  # fmt: skip
        of_latents = (
            "model.image_size=4",
            "model.channels=4",
            "model.auxiliary.patch_size=1",
            "model.velocity.patch_size=1",
        )
        shown = "train.pictures.time_share=1"
        folder.train("codec_prior", "auxiliary", 800, *of_latents, shown, shards="latents")
        decoded = (*of_latents, shown, f"train.pictures.codec_path={root}/taesd")
        folder.train("pictures_flow", "flow", 32, *decoded, parent="codec_prior", shards="latents")
        check_pictures(root / "codec_prior", root / "pictures_flow")
        for name, stage in (("codec_flow", "flow"), ("codec_sampler", "latent_sampler")):
            folder.train(name, stage, 800, *of_latents, parent="codec_prior", shards="latents")
        found = folder.stages("codec_stages", "codec_flow", "codec_sampler", "coarse", f"data.photographs={root}/large",
                              f"codec_path={root}/taesd", "count=32", shards="latents")  # fmt: skip
        assert found["verdict"]["limits"] == "codec"
        assert found["codec_floor"]["low"] > found["real"]["high"]


def check_pictures(plain: Path, decoded: Path) -> None:
    """Pictures while training show latents as colours, and images where the codec is at hand."""
    for run, note in ((plain, "Latents of taesd, not decoded"), (decoded, "Decoded by taesd.")):
        [event] = events(run, "pictures")
        assert note in event["pictures"]["heldout"]["caption"]
        pixels = np.asarray(Image.open(run / event["pictures"]["heldout"]["file"]))[:96, 150:]
        # a latent is 24 pixels wide, a decoded pixel 3
        is_coarse = (pixels[:, :96:24] == pixels[:, 12:96:24]).all()
        assert is_coarse == (run == plain)


def save_codec(folder: Path) -> None:
    """An autoencoder that was never trained."""
    fix_torchvision()
    from diffusers import AutoencoderTiny

    torch.manual_seed(0)
    AutoencoderTiny().save_pretrained(folder)


class TestFile:
    def test_there_is_a_row_for_every_source_and_setting(self, plain):
        settings = [(row["z"], row["solver"], row["steps"], row["nfe"]) for row in plain["rows"]]
        each = [("none", 0, 0), ("midpoint", 1, 2), ("midpoint", 4, 8)]
        assert settings == [(z, *setting) for z in SOURCES for setting in each] + [
            ("gaussian", *setting) for setting in each[1:]
        ]
        assert all(row["low"] < row["mmd"] < row["high"] for row in plain["rows"])
        assert {row["mmd_name"].split(":")[0] for row in plain["rows"]} == {"MMD (torchscript"}

    def test_images_and_draws_of_each_are_recorded_where_a_split_is_small(self, plain, folder):
        keys = ShardReader.open(folder.root / "shards").index.table["key"]
        held_out = len(samples_of("heldout", keys, HELD_OUT))
        row = next(row for row in plain["rows"] if row["z"] == "heldout")
        assert (row["images"], row["real_images"]) == (COUNT, held_out)
        assert row["draws_of_each"] == -(-COUNT // held_out) > 1

    def test_losses_latents_and_the_prior_are_recorded(self, plain):
        losses = plain["losses"]
        for run, images in (("auxiliary", 3200), ("flow", 800), ("sampler", 4800), ("baseline", 320)):
            assert losses[run]["images_seen"] == images
        assert losses["auxiliary"]["held_out_minimum"] <= losses["auxiliary"]["held_out"]
        for split in ("training", "heldout"):
            prior = losses["prior"][split]
            assert sum(prior["kl_nats_by_channel"]) == pytest.approx(prior["kl_nats_per_image"], rel=1e-9)
            assert np.sum(prior["kl_nats_by_place"]) == pytest.approx(prior["kl_nats_per_image"], rel=1e-9)
        assert losses["prior_widening"] > 0
        about = losses["latents"]["sampler"]
        ratio = np.divide(about["variance_by_channel"], losses["latents"]["training"]["variance_by_channel"])
        assert ratio.min() / 2 < about["against_training"]["variance_ratio"] < 2 * ratio.max()  # by entries

    def test_vgl_is_that_of_the_exported_model_at_draws_of_the_posterior(self, plain, folder):
        auxiliary, reader = (
            load_model(folder.root / "auxiliary" / "export").eval(),
            ShardReader.open(folder.root / "shards"),
        )
        held_out = samples_of("heldout", reader.index.table["key"], HELD_OUT)
        (batch,) = each_once(reader, held_out, len(held_out))
        noise = SampleNoise(0).normal(torch.arange(len(held_out)), "posterior", (2, 4, 4))
        with torch.no_grad():
            _, _, prior = auxiliary(batch.images, noise)
        distance = (batch.images - prior.mean).square() / prior.logvar.exp()
        expected = 0.5 * (prior.logvar + distance).mean(dim=(1, 2, 3))
        about = plain["losses"]["prior"]["heldout"]
        assert about["images"] == len(held_out)
        assert about["vgl"] == pytest.approx(expected.mean().item(), rel=1e-4)
        assert about["vgl_standard_error"] == pytest.approx(
            expected.std().item() / len(held_out) ** 0.5, rel=1e-3
        )
        assert about["sigma_geometric_mean"] == pytest.approx(
            (prior.logvar / 2).mean().exp().item(), rel=1e-4
        )

    def test_finished_rows_are_not_measured_again(self, plain, folder):
        rows = sorted((folder.root / "plain" / "rows").iterdir())
        before = [path.stat().st_mtime_ns for path in rows]
        again = folder.stages("plain", "flow", "sampler", "coarse", f"baseline={folder.root}/baseline")
        assert again["rows"] == plain["rows"]
        assert [path.stat().st_mtime_ns for path in rows] == before

    def test_two_ranks_have_the_bits_of_one(self, forks, plain, folder):
        output = folder.root / "ranks"
        asked = folder.asked(
            "flow", "sampler", "coarse", f"baseline={folder.root}/baseline", f"output={output}"
        )
        finished = forks.run_on_ranks(2, "lediflow.evaluate", *asked)
        assert [process.status for process in finished] == [0, 0], finished[0].output
        found = json.loads((output / "stages.json").read_text())
        for key in ("rows", "losses", "real", "verdict"):
            assert found[key] == plain[key]

    def test_the_figure_and_the_report_show_the_verdict(self, plain, folder):
        assert Image.open(folder.root / "plain" / "stages.png").width > 300
        shown = folder.root / "flow" / "results" / "stages"
        shown.mkdir(parents=True)
        (shown / "stages.json").write_bytes((folder.root / "plain" / "stages.json").read_bytes())
        succeed("report", folder.root / "flow", "--output", folder.root / "report.html")
        page = (folder.root / "report.html").read_text()
        assert "What limits the quality: " in page
        assert "training z" in page and "flow matching" in page


class TestImages:
    def test_an_image_is_generated_from_the_posterior_of_its_source_with_its_own_noise(self, folder):
        root = folder.root
        pipeline = load_pipeline(f"{root}/flow", f"{root}/sampler", device="cpu")
        reader = ShardReader.open(root / "shards")
        signals = ShardImages(reader, np.array([3, 8, 11]))
        config = SamplingConfig(seed=5, steps=1)
        images = ImagesFromReal(RealLatents(pipeline, signals, 5), config, 7, {})
        drawn = GeneratedImages(pipeline, config, 7, {})
        start, other = images.generated(range(4, 5)).start, pipeline([4], config).start
        noise = (start.x - start.prior.mean) * (-0.5 * start.prior.logvar).exp()
        others = (other.x - other.prior.mean) * (-0.5 * other.prior.logvar).exp()
        torch.testing.assert_close(noise, others, rtol=1e-4, atol=1e-4)  # of image 4, for any z
        posterior = pipeline.auxiliary.encode(signals.numbered([1]))  # 4 modulo 3
        distance = (start.z - posterior.mean) * (-0.5 * posterior.logvar).exp()
        assert 0 < distance.abs().max() < 6
        first, fourth = (images.generated(range(number, number + 1)).start.z for number in (1, 4))
        assert not torch.equal(first, fourth)  # two draws for one source
        torch.testing.assert_close(images(range(2, 6))[2:3], images(range(4, 5)))
        assert images.record != drawn.record


class TestRefusals:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (("labels=[0]",), "leave labels out"),
            (("grid.temperatures=[0.9,1.0]",), "temperature=..."),
            (("metrics.estimator=streaming",), "metrics.estimator=exact"),
            (("grid.steps=[0]",), "above 0"),
        ],
    )
    def test_options_of_other_modes_are_refused_with_what_to_do(self, folder, options, message):
        said = invoke("evaluate", *folder.asked("flow", "sampler", "coarse"), *options)
        assert (said.status, message in said.err) == (2, True)

    def test_a_baseline_has_one_stage(self, folder):
        asked = [
            item for item in folder.asked("baseline", "sampler", "coarse") if not item.startswith("sampler=")
        ]
        said = invoke("evaluate", *asked)
        assert (said.status, "baseline=" in said.err) == (2, True)

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("flow", "is a run of stage=flow from a learned prior; give one of stage=flow prior=gaussian"),
            ("sampler", "is a run of stage=latent_sampler; give one of stage=flow prior=gaussian"),
            ("nowhere", "there is no run there"),
        ],
    )
    def test_an_invalid_baseline_is_refused_before_anything_is_measured(self, folder, name, message):
        output = folder.root / "refused"
        asked = folder.asked(
            "flow", "sampler", "coarse", f"baseline={folder.root}/{name}", f"output={output}"
        )
        said = invoke("evaluate", *asked)
        assert (said.status, message in said.err, output.exists()) == (2, True, False)
        assert f"baseline={folder.root}/{name}" in said.err

    def test_runs_on_all_images_have_none_held_out(self, trained, folder):
        said = invoke("evaluate", "mode=stages", f"run={trained.flow}", f"sampler={trained.sampler}", "device=cpu",
                      f"data.path={trained.latents}", f"paths.runs={folder.root}")  # fmt: skip
        assert (said.status, "data.held_out_fraction=0.05" in said.err) == (2, True)

    def test_a_run_on_other_data_is_refused(self, trained, folder):
        said = invoke("evaluate", *folder.asked("flow", "sampler", "coarse", f"baseline={trained.baseline}"))
        assert said.status == 2
        assert f"baseline {trained.baseline} was trained on other data" in said.err

    def test_a_run_with_another_held_out_split_is_refused(self, folder):
        folder.train(
            "other",
            "flow",
            32,
            "prior=gaussian",
            "data.held_out_fraction=0.5",
            "train.validation.every_images=0",
        )
        said = invoke("evaluate", *folder.asked("flow", "sampler", "coarse", f"baseline={folder.root}/other"))
        assert said.status == 2
        assert "data.held_out_fraction=0.5, the flow with 0.25" in said.err
