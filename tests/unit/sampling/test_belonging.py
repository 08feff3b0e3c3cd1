"""Pipelines that are built by hand from models that were loaded one by one."""

from types import SimpleNamespace

import pytest
from harness.drawn_models import drawn_model
from harness.edited import SIZE, specs

from lediflow.errors import UserError
from lediflow.models import load_model, save_model
from lediflow.models.export import RECORD, record_of
from lediflow.sampling import LeDiFlowPipeline
from lediflow.sampling.belonging import common_names, names_of

NAMES = {"auxiliary": "auxiliary", "flow": "velocity", "sampler": "latent_sampler"}


@pytest.fixture(scope="module")
def exports(tmp_path_factory):
    """Export folders of one chain, with the width and the codec that its flow was trained with."""
    root, parent = tmp_path_factory.mktemp("chain"), None
    for seed, (name, spec) in enumerate(specs(1).items()):
        facts = {"stage": name, "prior": "learned", "image_size": SIZE, "codec": {"name": "pixels"}}
        width = {"prior_widening": 0.3, "prior_scale": 2.0} if name == "flow" else {}
        save_model(drawn_model(spec, seed, std=0.1), root / name, {**facts, **width, "parent": parent})
        if name == "auxiliary":
            parent = {"path": "auxiliary", "sha256": record_of(load_model(root / name))["weights_sha256"]}
    return root


@pytest.fixture
def models(exports):
    return {argument: load_model(exports / name) for name, argument in NAMES.items()}


def test_a_flow_starts_as_it_was_trained_to(models, tmp_path, caplog):
    """The recorded width is used without being asked for, and kept by a copy whose models are loaded one by one."""
    asked = LeDiFlowPipeline(**models, image_size=SIZE)
    assert asked.width == (2.0, 0.3)
    asked.save_pretrained(tmp_path)
    copies = {name: load_model(tmp_path / name) for name in models}
    assert LeDiFlowPipeline(**copies, image_size=SIZE).width == (2.0, 0.3)
    assert caplog.text == ""


def test_a_start_that_nothing_is_known_of_is_named(models, caplog):
    untrained = drawn_model(models["velocity"].spec, 0, std=0.1)
    given = LeDiFlowPipeline(**models | {"velocity": untrained}, image_size=SIZE, prior_widening=0.0)
    assert given.width == (1.0, 0.0) and caplog.text == ""
    assert LeDiFlowPipeline(**models | {"velocity": untrained}, image_size=SIZE).width == (1.0, 0.0)
    assert "without a record of their training" in caplog.text


@pytest.mark.parametrize(
    ("record", "options", "message"),
    [
        ({}, {"prior_widening": 0.0}, r"prior_widening=0.0: the flow was trained with prior_widening=0.3"),
        ({}, {"prior_scale": 1.0}, r"prior_scale=1.0: the flow was trained with prior_scale=2.0"),
        ({}, {"image_size": 32}, r"image_size=32: the flow was trained on images of 16 x 16"),
        ({}, {"auxiliary": None, "latent_sampler": None}, "trained from a learned prior"),
        ({"prior": "gaussian"}, {}, "Gaussian baseline, which was trained without a prior"),
        ({"codec": {"name": "taesd"}}, {}, "trained on latents of codec=taesd; give the codec"),
        (
            {"parent": {"sha256": "0" * 64}},
            {},
            "the flow was trained on the auxiliary model 000000000000, given is",
        ),
    ],
)
def test_what_differs_from_the_training_is_refused(record, options, message, models):
    models["velocity"].__dict__[RECORD] |= record
    with pytest.raises(ValueError, match=message):
        LeDiFlowPipeline(**{"image_size": SIZE, **models, **options})


def test_models_that_know_classes_by_different_names_are_refused():
    flow, sampler = (
        SimpleNamespace(**{RECORD: {"data": {"classes": names}}}) for names in (["a", "b"], ["b", "c"])
    )
    assert common_names(names_of(flow), []) == ["a", "b"]
    with pytest.raises(UserError, match="classes of different names"):
        common_names(names_of(flow), names_of(sampler))
