"""A codec, a view of runs and a feature extractor are each added by one entry of their table."""

import pytest
import torch
from einops import rearrange
from harness.commands import invoke, succeed
from hydra.core.config_store import ConfigStore
from PIL import Image

from lediflow.codecs import CODECS, CodecKind, Latents
from lediflow.data.shards.reader import ShardReader
from lediflow.evaluation.features import EXTRACTORS, ExtractorKind
from lediflow.evaluation.results import read_results
from lediflow.tracking.event_log import read_events
from lediflow.tracking.tracker import VIEWS

SIZE = 16


class BlockCodec:
    """Each 2x2 block of pixels becomes one position with four times the channels."""

    name = "blocks"
    is_exact = is_stochastic = False
    reduction = 2

    def latent_shape(self, image_size, image_channels):
        return 4 * image_channels, image_size // 2, image_size // 2

    def encode(self, images):
        return Latents(rearrange(images, "b c (h p) (w q) -> b (c p q) h w", p=2, q=2), None)

    def decode(self, latents):
        return rearrange(latents, "b (c p q) h w -> b c (h p) (w q)", p=2, q=2)

    def record(self):
        return {"name": self.name}


class Kept:
    """Keeps the names of the events that it receives."""

    def __init__(self):
        self.events, self.is_closed = [], False

    def record(self, event, images_seen, **values):
        self.events.append((event, images_seen))

    def close(self):
        self.is_closed = True


class Colours:
    """Mean and standard deviation of each channel: features of 6 numbers."""

    name, dim, record = "colours", 6, {"name": "colours"}

    def __call__(self, images):
        pixels = images.expand(-1, 3, -1, -1).float().flatten(2)
        return torch.cat((pixels.mean(2), pixels.std(2)), dim=1)


@pytest.fixture(scope="module")
def view():
    return Kept()


@pytest.fixture(scope="module")
def added(view):
    """Each table with one entry more, which this file makes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(
            CODECS, "blocks", CodecKind(lambda path, device, dtype: BlockCodec(), has_weights=False)
        )
        patch.setitem(VIEWS, "kept", lambda run: view if run.title.startswith("flow") else None)
        patch.setitem(EXTRACTORS, "colours", ExtractorKind(lambda config: Colours(), title="Colours"))
        yield
    # Hydra's store lasts as long as the process
    ConfigStore.instance().repo["codec"].pop("blocks.yaml", None)


@pytest.fixture(scope="module")
def run(added, trained, tmp_path_factory):
    """The Gaussian baseline on shards of the added codec."""
    root = tmp_path_factory.mktemp("added")
    succeed("encode", f"source={trained.shards}", f"output={root}/blocks", "codec=blocks")
    succeed("train", "experiment=smoke", "stage=flow", "prior=gaussian", "synthetic_images=0", "engine.device=cpu",
            f"data.path={root}/blocks", "model.channels=4", "model.image_size=8", "train.images=32",
            f"run={root}/run")  # fmt: skip
    return root / "run"


def test_a_codec_encodes_and_decodes_under_its_name(run, trained, tmp_path):
    pictures, latents = (ShardReader.open(where) for where in (trained.shards, run.parent / "blocks"))
    assert latents.index.contents.signal_shape == (4, SIZE // 2, SIZE // 2)
    found = BlockCodec().decode(latents.signals([0, 1]).mean)
    torch.testing.assert_close(found, pictures.signals([0, 1]).mean, atol=5e-4, rtol=0)  # float16 in [-1, 1]
    succeed("sample", f"run={run}", "count=2", "device=cpu", f"output={tmp_path}/pictures")
    assert Image.open(tmp_path / "pictures" / "000000.png").size == (SIZE, SIZE)


def test_an_unknown_codec_names_those_of_the_table(trained, tmp_path):
    said = invoke("encode", f"source={trained.shards}", f"output={tmp_path}/none", "codec.name=squares")
    assert said.status == 2 and ", ".join(CODECS) in said.err


def test_a_view_receives_every_event_of_a_run(run, view):
    logged = [(event["event"], event["images_seen"]) for event in read_events(run / "events.jsonl")]
    assert view.events == logged and view.is_closed
    assert ("train", 32) in view.events


def test_a_feature_extractor_measures_under_its_name(added, trained, tmp_path):
    options = (f"images={trained.pictures}", f"reference={trained.pictures}", f"paths.runs={tmp_path}")
    said = succeed("evaluate", *options, "features.name=colours", "device=cpu", f"output={tmp_path}/same")
    results = read_results(tmp_path / "same" / "results.json")["results"]
    (row,) = results["rows"]
    assert row["frechet"] == pytest.approx(0, abs=1e-6)  # a set against itself
    assert "(Colours)" in said.out and row["features"] == "colours"
    said = invoke("evaluate", *options, "features.name=colors", "device=cpu", f"output={tmp_path}/none")
    assert said.status == 2 and ", ".join(EXTRACTORS) in said.err
