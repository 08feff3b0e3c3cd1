"""DeepSpeed trains with recomputed layers what the local engine trains with kept ones."""

import pytest
from harness.commands import succeed
from harness.curves import loss_curve
from harness.processes import torchrun


def test_deepspeed_with_recomputed_layers_has_the_loss_curve_of_the_local_engine(tmp_path):
    options = ("experiment=smoke", "stage=auxiliary", "engine.device=cpu", "train.images=96")
    data = f"data.path={tmp_path}/shards"
    succeed("train", *options, data, f"run={tmp_path}/local")
    recomputing = ("engine=deepspeed", "engine.zero=2", "engine.activation_checkpointing=true")
    finished = torchrun(1, "lediflow.train", *options, data, f"run={tmp_path}/recomputed", *recomputing)
    assert finished.status == 0, finished.output
    found, expected = loss_curve(tmp_path / "recomputed"), loss_curve(tmp_path / "local")
    assert list(found) == list(expected) == [32, 64, 96]
    # the two engines sum gradients in another order
    assert list(found.values()) == pytest.approx(list(expected.values()), rel=1e-5)
