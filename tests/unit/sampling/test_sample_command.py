"""`python -m lediflow.sample` on an exported class-conditional flow."""

import json

import numpy as np
import pytest
import torch
from harness.commands import invoke, succeed
from PIL import Image

from lediflow.models import LevelSpec, MappingSpec, VelocitySpec, build_model, save_model
from lediflow.sampling.pictures import picture_files

FACTS = {"stage": "flow", "prior": "gaussian", "image_size": 8, "codec": {"name": "pixels"}, "parent": None}
FACTS["data"] = {"classes": ["ant", "bee hive", "cat"]}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A baseline's run folder with nothing but its export; every weight drawn."""
    folder = tmp_path_factory.mktemp("classified")
    torch.manual_seed(0)
    levels = [LevelSpec(depth=1, width=16, head_dim=8)]
    mapping = MappingSpec(depth=1, width=16)
    spec = VelocitySpec(image_channels=1, patch_size=2, levels=levels, mapping=mapping, num_classes=3)
    model = build_model(spec)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.15)
    save_model(model, folder / "export", FACTS)
    return folder


def drawn(run, output, *options):
    """The pictures and what samples.json says of them."""
    succeed("sample", f"run={run}", f"output={output}", "count=4", "device=cpu", *options)
    pictures = torch.stack([torch.from_numpy(np.array(Image.open(path))) for path in picture_files(output)])
    return pictures, json.loads((output / "samples.json").read_text())


def test_one_class_for_all_and_classes_in_turn_agree_for_equal_classes(run, tmp_path):
    all_ones, facts = drawn(run, tmp_path / "ones", "labels=[1]")
    in_turn, _ = drawn(run, tmp_path / "turns", "labels=[0,1]")
    assert facts["labels"] == [1]
    assert torch.equal(all_ones[1::2], in_turn[1::2])
    assert not torch.equal(all_ones[::2], in_turn[::2])


def test_a_class_has_a_number_and_a_name(run, tmp_path):
    """The folder made by numbers is the one that names ask for."""
    drawn(run, tmp_path, "labels=[1,2,1]")
    named = ("sample", f"run={run}", f"output={tmp_path}", "count=4", "device=cpu", "labels=[bee hive,cat,1]")
    assert "already sampled" in invoke(*named).out


def test_guidance_is_recorded_with_twice_the_evaluations(run, tmp_path):
    plain, one = drawn(run, tmp_path / "plain", "labels=[2]")
    guided, two = drawn(run, tmp_path / "guided", "labels=[2]", "guidance=3")
    assert (two["guidance"], two["nfe"]) == (3.0, 2 * one["nfe"])
    assert not torch.equal(plain, guided)


def test_pictures_with_other_labels_are_generated_again(run, tmp_path):
    first, _ = drawn(run, tmp_path, "labels=[0]")
    second, facts = drawn(run, tmp_path, "labels=[1]")
    assert facts["labels"] == [1]
    assert not torch.equal(first, second)


def test_pictures_in_another_precision_are_generated_again(run, tmp_path):
    first, facts = drawn(run, tmp_path)
    assert facts["precision"] == "float32"  # what auto means on a CPU
    second, facts = drawn(run, tmp_path, "precision=bfloat16")
    assert facts["precision"] == "bfloat16"
    assert not torch.equal(first, second)


def test_pictures_of_releases_without_the_option_are_in_float32(run, tmp_path):
    _, facts = drawn(run, tmp_path)
    del facts["precision"]
    (tmp_path / "samples.json").write_text(json.dumps(facts))
    arguments = (f"run={run}", f"output={tmp_path}", "count=4", "device=cpu")
    assert "already sampled" in invoke("sample", *arguments).out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["labels=[3]"], "labels=[3]: the classes are 0 to 2: 0 ant, 1 bee hive, 2 cat"),
        (["labels=[Cat]"], "no class is called 'Cat'; did you mean cat? The classes are 0 ant, 1 bee hive"),
        (["labels=cat"], "labels"),
        (["guidance=2"], "guidance=2.0 without labels"),
        (["latent_steps=0"], "latent_steps=0 must be at least 1"),
        (["conditioning=x"], "conditioning"),
        (["runtime=fast"], "runtime='fast' is unknown; use one of auto, eager, compiled, exported"),
        (["precision=half"], "precision='half' is unknown; use one of float32, bfloat16"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_invalid_sampling_options_are_refused_with_a_message(run, options, message, tmp_path):
    said = invoke("sample", f"run={run}", f"output={tmp_path}", "count=1", "device=cpu", *options)
    assert said.status == 2
    assert message in said.err and "Traceback" not in said.err
    assert not list(tmp_path.iterdir())
