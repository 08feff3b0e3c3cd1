"""A trial of a micro-batch is the stage's own forward and backward pass, and leaves nothing behind."""

import pytest
import torch
from harness.commands import compose

from lediflow.config.building import micro_batch
from lediflow.config.building.inputs import open_inputs
from lediflow.config.building.micro_batch import (
    activation_bytes,
    blank_batch,
    build_trial_stage,
    fitted_micro_batch,
    trial_of,
)
from lediflow.config.building.models import build_trained_model
from lediflow.engine.memory import HOST_SHARE
from lediflow.engine.ranks import Ranks
from lediflow.flow.noise import SampleNoise

CPU = torch.device("cpu")


@pytest.mark.parametrize("name", ["auxiliary", "flow", "baseline", "sampler", "flow_map", "meanflow"])
def test_every_stage_passes_made_up_samples_as_it_passes_real_ones(trained, name):
    named = {"flow_map": [f"sampler={trained.sampler}"], "meanflow": []}
    words = [f"stage.objective={name}", f"teacher={trained.flow}", *named[name]] if name in named else []
    command = compose(*trained.commands["flow" if words else name], *words)
    inputs = open_inputs(command, Ranks())
    model = build_trained_model(command)
    auxiliary = inputs.parent.model if inputs.parent else None
    stage = build_trial_stage(command, auxiliary, inputs.teacher, model)
    trained_weights = [weight for weight in model.parameters() if weight.requires_grad]
    before = [weight.clone() for weight in trained_weights]
    gradients = []
    hooks = [weight.register_hook(gradients.append) for weight in trained_weights]
    trial_of(command, model, stage, CPU)(3)
    assert len(gradients) == len(hooks)  # every weight was reached
    assert all(weight.grad is None for weight in trained_weights)
    assert all(map(torch.equal, before, trained_weights))


def test_made_up_samples_have_the_shape_of_the_shards(trained):
    command = compose(*trained.commands["auxiliary"])
    reader = open_inputs(command, Ranks()).reader
    batch = blank_batch(command, 5, CPU)
    assert batch.images.shape == (5, *reader.index.contents.signal_shape)
    assert batch.ids.shape == batch.labels.shape == (5,)


def test_ranks_on_a_cpu_take_their_whole_share_unless_the_free_memory_is_too_small(trained, monkeypatch):
    command = compose(*trained.commands["auxiliary"])
    model = build_trained_model(command)
    assert fitted_micro_batch(command, model, None, CPU, Ranks(world_size=4), int) == 16 // 4
    room = 4 * 3 * activation_bytes(command, CPU) / HOST_SHARE  # 3 samples on each of 4 ranks
    monkeypatch.setattr(micro_batch, "free_memory", lambda: int(room))
    assert fitted_micro_batch(command, model, None, CPU, Ranks(world_size=4), int) == 2


def test_the_estimated_activations_are_those_that_autograd_keeps(trained):
    command = compose(*trained.commands["baseline"])
    model = build_trained_model(command)
    stage, kept = build_trial_stage(command, None), {}

    def note(tensor):
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    weights = sum(weight.untyped_storage().nbytes() for weight in model.parameters())
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        loss = stage.loss(model, blank_batch(command, 64, CPU), SampleNoise(0)).loss
    # beyond the model: path, loss and its logs; the weights are saved, too
    assert 64 * activation_bytes(command, CPU) == pytest.approx(sum(kept.values()) - weights, rel=0.3), loss
