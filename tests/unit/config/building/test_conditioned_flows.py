"""Every way in which latent and class reach the flow trains and samples from the command line."""

import json

import pytest
from harness.commands import succeed

from lediflow.models import load_model
from lediflow.models.specs import CONDITIONINGS


@pytest.mark.parametrize("conditioning", CONDITIONINGS)
def test_a_flow_with_latent_and_class_trains_and_is_guided(conditioning, trained, tmp_path):
    command = [word for word in trained.commands["flow"] if not word.startswith(("run=", "data.path="))]
    options = [f"data.path={tmp_path}/data", "synthetic_images=32", "train.images=32", f"run={tmp_path}/flow"]
    options.append("other_data=true")  # the parent has learned pictures without classes
    model = [f"model.velocity.conditioning={conditioning}", "model.velocity.num_classes=2"]
    succeed(*command, *options, *model)
    spec = load_model(tmp_path / "flow" / "export").spec
    assert (spec.conditioning, spec.latent_shape, spec.num_classes) == (conditioning, [2, 4, 4], 2)

    runs = (f"run={tmp_path}/flow", f"sampler={trained.sampler}", f"output={tmp_path}/samples")
    succeed("sample", *runs, "count=2", "device=cpu", "labels=[0,1]", "guidance=2", "solver=euler", "steps=3")
    facts = json.loads((tmp_path / "samples" / "samples.json").read_text())
    assert (facts["labels"], facts["guidance"], facts["nfe"]) == ([0, 1], 2.0, 6)
    assert len(list((tmp_path / "samples").glob("*.png"))) == 2
