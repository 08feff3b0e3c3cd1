"""The run folder says what is missing, and what would make it."""

import hashlib
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

from lediflow.claims import visible_names
from lediflow.errors import UserError
from lediflow.models import AuxiliarySpec, LevelSpec, build_model, save_model
from lediflow.run_folder import RunFolder

HOW = "python -m lediflow.train stage=auxiliary"


def exported(folder) -> nn.Module:
    torch.manual_seed(0)
    levels = [LevelSpec(depth=1, width=16, head_dim=8)]
    model = build_model(AuxiliarySpec(image_channels=1, patch_size=2, levels=levels))
    save_model(model, folder.export, {"images_seen": 64})
    return model


def test_an_export_is_found_with_its_facts_and_the_hash_of_its_weights(tmp_path):
    folder = RunFolder(tmp_path)
    exported(folder)
    assert folder.require_export("the model", HOW) == tmp_path / "export"
    assert folder.exported_facts()["images_seen"] == 64
    content = (tmp_path / "export" / "model.safetensors").read_bytes()
    assert folder.weights_hash() == hashlib.sha256(content).hexdigest()


def test_an_export_in_place_of_its_run_is_named(tmp_path):
    exported(RunFolder(tmp_path / "run"))
    with pytest.raises(UserError, match=r"run/export is the export in it; give .*/run$"):
        RunFolder(tmp_path / "run" / "export").require_export("the prior", HOW)


@pytest.mark.parametrize(
    ("made", "found"),
    [
        (None, "there is no run there"),
        ("notes", "holds no trained model"),
        ("checkpoints", "unfinished checkpoints"),
    ],
)
def test_without_an_export_the_message_names_the_contents_and_the_command(tmp_path, made, found):
    folder = RunFolder(tmp_path / "run")
    if made:
        (folder.root / made).mkdir(parents=True)
    with pytest.raises(UserError, match=f"the prior is to be read from .*{found}.*train it: {HOW}"):
        folder.require_export("the prior", HOW)


def test_a_folder_that_cannot_be_made_is_explained(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"run=.*/file/run cannot be written .*choose another run="):
        RunFolder(tmp_path / "file" / "run").create()


def test_creating_a_folder_leaves_it_empty(tmp_path):
    RunFolder(tmp_path / "a" / "b").create()
    assert list((tmp_path / "a" / "b").iterdir()) == []


def test_a_rank_that_lists_the_folder_while_another_begins_the_run_is_not_refused(tmp_path, monkeypatch):
    folder = RunFolder(tmp_path / "run")

    def names_after_the_other_began(root):
        folder.lease.write_text("{}")
        return visible_names(root)

    monkeypatch.setattr("lediflow.run_folder.visible_names", names_after_the_other_began)
    folder.create()


def test_several_ranks_may_create_it_at_once(tmp_path):
    folder = RunFolder(tmp_path / "run")
    with ThreadPoolExecutor(8) as ranks:
        list(ranks.map(lambda _: folder.create(), range(400)))
    assert list(folder.root.iterdir()) == []
