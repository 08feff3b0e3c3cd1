"""Runs on latents are held against the photographs and against their reconstructions; the codec's floor is between."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from harness.commands import succeed
from torch import Tensor

from lediflow.codecs import CodecConfig, build_codec
from lediflow.compat import fix_torchvision
from lediflow.data.synthetic import make_synthetic_shards
from lediflow.engine.group import Group
from lediflow.errors import UserError
from lediflow.evaluate import MODELS
from lediflow.evaluation.cmmd import cmmd
from lediflow.evaluation.config import EvaluateConfig, RealImagesConfig
from lediflow.evaluation.features import unit
from lediflow.evaluation.modes.rows import RowMaker
from lediflow.evaluation.references import references
from lediflow.evaluation.session import Session
from lediflow.flow.widening import Width

fix_torchvision()
from diffusers import AutoencoderKL  # noqa: E402  its import needs the workaround

COUNT, SIZE = 10, 32


class Pixels:
    """Every fourth pixel is a feature."""

    name, dim = "pixels", 3 * SIZE * SIZE // 4
    record = {"features": "pixels"}  # noqa: RUF012 - a stand-in's facts

    def __call__(self, images: Tensor) -> Tensor:
        return images.flatten(1)[:, ::4].float()


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """Photographs, and their latents by a tiny autoencoder."""
    root = tmp_path_factory.mktemp("latents")
    torch.manual_seed(0)
    autoencoder = AutoencoderKL(
        block_out_channels=(8, 8, 8, 8), down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4, norm_num_groups=4, latent_channels=4,
    )  # fmt: skip
    autoencoder.save_pretrained(root / "vae")
    make_synthetic_shards(root / "images", COUNT, size=SIZE, channels=3)
    make_synthetic_shards(root / "others", COUNT, size=SIZE, channels=3, seed=5)
    succeed("encode", f"source={root}/images", f"output={root}/latents", "codec.name=sd2_vae",
            f"codec.path={root}/vae", "device=cpu")  # fmt: skip
    return root


@pytest.fixture
def session(sets, tmp_path):
    """A session of one rank about the latents."""

    def of(path: str, photographs: str | None = None) -> Session:
        data = RealImagesConfig(path=f"{sets}/{path}", photographs=photographs and f"{sets}/{photographs}")
        command = EvaluateConfig(data=data, batch_size=4)
        return Session(command, tmp_path, MODELS, Group(), torch.device("cpu"), Pixels())

    return of


@pytest.fixture(scope="module")
def pipeline(sets):
    """As far as references need one."""
    decode = build_codec(CodecConfig(name="sd2_vae", path=f"{sets}/vae"), torch.device("cpu")).decode
    return SimpleNamespace(decode=decode, device=torch.device("cpu"), width=Width())


@pytest.fixture(scope="module")
def facts(sets):
    """The facts of a run that was trained on latents of this codec, but on another set."""
    codec = json.loads((sets / "latents" / "index.json").read_text())["codec"]
    return {
        "data": {"fingerprint": "another set's", "held_out_fraction": 0.0}, "image_size": SIZE // 8, "codec": codec,
    }  # fmt: skip


def test_photographs_are_the_first_reference_and_reconstructions_the_second(session, pipeline, facts):
    found = references(session("latents", "images"), pipeline, facts)
    assert [reference.name for reference in found] == ["photographs", "reconstructions"]
    photographs, reconstructions = (reference.rows(Group(), "cpu").values for reference in found)
    assert photographs.shape == reconstructions.shape == (COUNT, Pixels.dim)
    assert not torch.allclose(photographs, reconstructions, atol=0.1)  # an untrained codec loses much


@pytest.mark.parametrize(("split", "chosen"), [("all", range(COUNT)), ("train", range(1, COUNT, 2))])
def test_the_codecs_floor_is_the_distance_of_reconstructions_from_other_photographs(
    session, pipeline, facts, tmp_path, split, chosen
):
    """By its definition: means over pairs of two images, in which no image is compared with its own reconstruction."""
    asked, chosen = session("latents", "images"), [*chosen]
    found = references(asked, pipeline, facts)
    real, decoded = (unit(reference.rows(Group(), "cpu").values.double())[chosen] for reference in found)
    is_held_out = ~np.isin(np.arange(COUNT), chosen)
    split_so = [
        replace(reference, chosen=np.array(chosen), is_held_out=is_held_out if split == "train" else None)
        for reference in found
    ]
    floor = RowMaker(asked, "run", pipeline, {}, split_so, tmp_path).facts()["codec_floor"]

    def mean(a, b):
        values = (torch.cdist(a, b).square() / -200).exp()
        return (values.sum() - values.diagonal().sum()) / (len(a) * (len(a) - 1))

    expected = 1000 * (mean(decoded, decoded) + mean(real, real) - 2 * mean(decoded, real)).item()
    assert floor["mmd_unbiased"] == pytest.approx(expected, rel=1e-6)
    assert floor["mmd_interval"][0] < expected < floor["mmd_interval"][1]
    assert floor["mmd"] == pytest.approx(cmmd(decoded, real), rel=1e-9)
    assert floor["sample_images"] == floor["reference_images"] == len(chosen)
    assert (
        not {"nearest_training", "kid", "frechet", "precision"} & floor.keys()
    )  # they would count those pairs


def test_without_photographs_the_reference_is_called_reconstructions(session, pipeline, facts, capsys):
    (found,) = references(session("latents"), pipeline, facts)
    assert found.name == "reconstructions"
    assert "data.photographs=SHARDS" in capsys.readouterr().err


def test_photographs_that_the_latents_were_not_made_from_are_refused(session, pipeline, facts):
    with pytest.raises(UserError, match=r"are not what the latents in .* were made from"):
        references(session("latents", "others"), pipeline, facts)


def test_pixels_have_no_other_photographs(session, pipeline, facts):
    facts = facts | {"codec": {"name": "pixels"}, "image_size": SIZE}
    with pytest.raises(UserError, match=r"holds the pixels themselves; leave it out"):
        references(session("images", "others"), pipeline, facts)


@pytest.mark.parametrize("path", ["images", "small"])
def test_shards_of_another_kind_or_size_than_the_run_makes_are_refused(session, sets, pipeline, facts, path):
    if path == "small":
        facts = facts | {"codec": {"name": "pixels"}, "image_size": SIZE}
        make_synthetic_shards(sets / "small", COUNT, size=SIZE // 2, channels=3)
    with pytest.raises(
        UserError, match=r"holds pixels of side \d+, the run makes .* of side \d+; give shards"
    ):
        references(session(path), pipeline, facts)
