"""Which real images a metric is about."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from harness.tars import picture, tar_of
from safetensors.torch import save_file

from lediflow.data.shards.reader import ShardReader
from lediflow.engine.group import Group
from lediflow.errors import UserError
from lediflow.evaluation.embedding import FeatureSet
from lediflow.evaluation.references import (
    Reference,
    absent_classes,
    chosen_numbers,
    held_out_samples,
    other_names,
    reference_samples,
    seen_held_out,
)

HELD_OUT = np.array([False, True, False, False, True])


@pytest.fixture
def features(tmp_path) -> FeatureSet:
    save_file({"features": torch.arange(5.0)[:, None]}, tmp_path / "set.safetensors")
    return FeatureSet(tmp_path / "set.safetensors")


@pytest.mark.parametrize(
    ("split", "numbers"), [("all", [0, 1, 2, 3, 4]), ("train", [0, 2, 3]), ("heldout", [1, 4])]
)
def test_a_split_is_the_one_of_the_training(split, numbers):
    assert chosen_numbers(split, HELD_OUT, 5).tolist() == numbers


def test_a_split_of_images_without_a_held_out_fraction_is_refused():
    with pytest.raises(UserError, match=r"data\.split=heldout.*data\.split=all"):
        chosen_numbers("heldout", None, 5)
    with pytest.raises(UserError, match=r"data\.split=test is not known; choose one of all, train, heldout"):
        chosen_numbers("test", HELD_OUT, 5)


def test_some_images_of_a_tar_in_the_order_of_its_classes_are_of_all_classes(tmp_path):
    """As webdataset tars are: `reference_count=3` of three classes, two of whose images are held out."""
    files = {f"{n}.{kind}": picture() if kind == "png" else str(n // 4).encode()
             for n in range(12) for kind in ("png", "cls")}  # fmt: skip
    tar_of(tmp_path / "all.tar", files)
    reader = ShardReader.open(tmp_path)
    chosen = reference_samples(reader, 3)
    assert reader.labels(chosen).tolist() == [0, 1, 2]
    assert reference_samples(reader, 0).tolist() == reference_samples(reader, 99).tolist() == [*range(12)]
    facts = {"data": {"fingerprint": reader.index.fingerprint, "held_out_fraction": 0.3}}
    whole = held_out_samples(reader, facts, np.arange(12))
    assert held_out_samples(reader, facts, chosen).tolist() == whole[chosen].tolist()


def test_parts_are_rows_of_the_one_set(features):
    reference = Reference("photographs", features, chosen_numbers("heldout", HELD_OUT, 5), HELD_OUT)
    group = Group()
    found = (reference.rows(group, "cpu"), reference.training(group, "cpu"), reference.held_out(group, "cpu"))
    assert [rows.values.flatten().tolist() for rows in found if rows] == [[1, 4], [0, 2, 3], [1, 4]]


def test_other_splits_have_other_fingerprints(features):
    prints = {
        Reference("photographs", features, chosen_numbers(split, HELD_OUT, 5), HELD_OUT).fingerprint
        for split in ("all", "train", "heldout")
    }
    assert len(prints) == 3


def test_images_that_the_run_was_not_trained_on_cannot_be_memorised(features):
    reference = Reference("photographs", features, np.arange(5), None)
    assert reference.training(Group(), "cpu") is None


@pytest.mark.parametrize(
    ("labels", "found", "note"),
    [
        ([1], [0, 1, 2, 1], "generates 1 of the 3 classes"),
        ([2, 0], [0, 1, 2, 1], "generates 2 of the 3 classes"),
        ([0, 1, 2], [0, 1, 2, 1], None),
        ([0], [-1, -1], None),
        ([], [0, 1], None),
    ],
)
def test_classes_of_the_reference_that_are_not_generated_are_noted(labels, found, note):
    text = absent_classes(labels, np.array(found, dtype=np.int32))
    assert note in text if note else text == ""


@pytest.mark.parametrize(
    ("flow", "model", "is_noted"),
    [
        (("a", 0.1), ("a", 0.05), True),
        (("a", 0.1), ("a", 0), True),
        (("a", 0.1), ("a", 0.1), False),
        (("a", 0.1), ("a", 0.2), False),  # a larger held-out set contains a smaller one
        (("a", 0.1), ("b", 0), False),
    ],
)
def test_a_model_that_has_seen_held_out_images_is_noted(flow, model, is_noted):
    data = ({"fingerprint": index, "held_out_fraction": share} for index, share in (model, flow))
    assert ("training images of the sampler" in seen_held_out("sampler", *data)) == is_noted


@pytest.mark.parametrize(
    ("labels", "found", "note"),
    [
        ([0, 1], ["ant", "cat"], "(1 is cat, was bee)"),
        ([0], ["ant", "cat"], ""),
        ([2], ["ant", "cat"], ""),
        ([1], [], ""),
        ([], ["cat"], ""),
    ],
)
def test_classes_of_the_reference_with_other_names_are_noted(labels, found, note):
    text = other_names(labels, ["ant", "bee", "cat"], found)
    assert note in text and bool(text) == bool(note)
