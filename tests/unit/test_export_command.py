"""`lediflow.export`: one folder with all models and a model card, which sample and from_pretrained read."""

import json

import pytest
import torch
from harness.commands import invoke, succeed
from PIL import Image

from lediflow.models import load_model
from lediflow.sampling import LeDiFlowPipeline

TERMS = ("license=cc-by-4.0", "title=Bars: and discs", "description=Made for a test.")


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory):
    """The folder, and what the command said."""
    folder = tmp_path_factory.mktemp("exported") / "models"
    said = succeed(
        "export", f"run={trained.flow}", f"sampler={trained.sampler}", f"output={folder}", "count=9", *TERMS
    )
    return folder, said


def refusal(*words):
    """The error of a command that cannot be met."""
    said = invoke(*words)
    assert said.status == 2
    return said.err


def pictures(folder):
    return {path.name: path.read_bytes() for path in folder.glob("*.png")}


def test_the_folder_samples_the_images_of_the_runs(exported, trained, tmp_path):
    folder, said = exported
    assert "equal to those of the runs" in said.out
    succeed("sample", f"run={folder}", f"output={tmp_path}/folder", "count=3")
    succeed(
        "sample", f"run={trained.flow}", f"sampler={trained.sampler}", f"output={tmp_path}/runs", "count=3"
    )
    assert pictures(tmp_path / "folder") == pictures(tmp_path / "runs") != {}
    weights = json.loads((tmp_path / "folder/samples.json").read_text())["weights"]
    assert sorted(weights) == ["auxiliary", "flow", "latent_sampler"]


def test_the_card_names_models_data_and_terms_and_no_folder_of_this_machine(exported, trained):
    folder, _ = exported
    card = (folder / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: lediflow\n") and '\nlicense: "cc-by-4.0"\n' in card
    assert "# Bars: and discs\n\nMade for a test." in card
    for run in ("flow", "auxiliary", "sampler"):
        facts = json.loads((trained.root / run / "export/config.json").read_text())
        assert f"| {facts['images_seen']} |" in card and facts["weights_sha256"][:12] in card
    assert "48 samples (`latents`)" in card and "bar, disc" in card
    assert str(trained.root) not in card
    with Image.open(folder / "samples.png") as grid:  # nine images are two rows
        assert grid.height > 2 * 16


def test_parameters_in_16_bits_take_half_the_space_and_buffers_are_exact(exported, trained):
    folder, _ = exported
    half = folder.parent / "half"
    said = succeed(
        "export", f"run={trained.flow}", f"sampler={trained.sampler}", f"output={half}", "dtype=float16"
    )
    assert "of 255 levels" in said.out and "no license was given" in said.out
    exact, rounded = (load_model(place / "velocity") for place in (folder, half))
    assert (half / "velocity/model.safetensors").stat().st_size < 0.6 * (
        folder / "velocity/model.safetensors"
    ).stat().st_size
    for (name, one), other in zip(exact.state_dict().items(), rounded.state_dict().values(), strict=True):
        is_parameter = name in dict(exact.named_parameters())
        assert torch.equal(one.half().float() if is_parameter else one, other)


def test_the_baseline_replaces_all_models_of_the_folder(trained, tmp_path):
    succeed("export", f"run={trained.flow}", f"sampler={trained.sampler}", f"output={tmp_path}")
    succeed("export", f"run={trained.baseline}", f"output={tmp_path}")
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["velocity"]
    assert LeDiFlowPipeline.from_pretrained(tmp_path).auxiliary is None
    assert "starts from Gaussian noise" in (tmp_path / "README.md").read_text()


@pytest.mark.parametrize("is_ours", [True, False])
def test_measurements_are_those_of_the_models(trained, tmp_path, is_ours):
    measured = trained.baseline if is_ours else trained.flow
    hashed = json.loads((measured / "export/config.json").read_text())["weights_sha256"]
    row = {
        **{"solver": "midpoint", "steps": 4, "nfe": 8, "temperature": 0.8, "sample_images": 256},
        **{"mmd_name": "MMD (X)", "mmd_unbiased": 1.25, "mmd_interval": [1.125, 1.375]},
        "record": {"images": {"models": {"flow": hashed, "codec": {}}}},
    }
    certificate = {
        "hardware": {"processor": "", "gpus": [], "system": ""},
        "versions": {},
        "commit": "",
        "date": "",
    }
    other = {**row, "mmd_unbiased": 9.5, "record": {"images": {"models": {"flow": "another"}}}}
    document = {"schema_version": 1, "certificate": certificate, "results": {"rows": [row, other]}}
    (tmp_path / "results.json").write_text(json.dumps(document))
    asked = (
        "export",
        f"run={trained.baseline}",
        f"output={tmp_path}/out",
        f"results={tmp_path}/results.json",
    )
    if is_ours:
        succeed(*asked)
        card = (tmp_path / "out/README.md").read_text()
        assert "| midpoint | 4 | 8 | 0.8 | 1.250 | 1.125 to 1.375 | 256 |" in card and "9.500" not in card
    else:
        assert "none of them of the models of run=" in refusal(*asked)


def test_requests_that_are_refused(exported, trained, tmp_path):
    folder, _ = exported
    assert "an exported folder already" in refusal("export", f"run={folder}", f"output={tmp_path}/again")
    assert "leave sampler= out" in refusal(
        "sample", f"run={folder}", f"sampler={trained.sampler}", f"output={tmp_path}/a"
    )
    (tmp_path / "mine.txt").write_text("kept")
    assert "is not empty (found mine.txt)" in refusal(
        "export", f"run={trained.baseline}", f"output={tmp_path}"
    )
    assert "dtype='int8' is unknown" in refusal("export", "run=a", "output=b", "dtype=int8")
