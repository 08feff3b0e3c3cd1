"""A decoder trained on with the flow: the control has the toolkit's loss, gradients are those of closed forms."""

import argparse
import copy
import importlib
from pathlib import Path

import pytest
import torch

from lediflow.data.streams.batch import Batch
from lediflow.flow.losses import variance_guided_loss
from lediflow.flow.noise import SampleNoise
from lediflow.flow.widening import Width
from lediflow.models.auxiliary import Posterior, Prior
from lediflow.stages.flow import FlowStage, FlowStageConfig

TOOLS = Path(__file__).parents[3] / "tools" / "campaign"
CONFIG = FlowStageConfig(prior_widening=0.3)


@pytest.fixture
def joint(monkeypatch):
    monkeypatch.syspath_prepend(str(TOOLS))
    return importlib.import_module("joint_stage")


class Auxiliary(torch.nn.Module):
    """The same latent and the same prior for every image."""

    def __init__(self):
        super().__init__()
        self.mean = torch.nn.Parameter(torch.full((1, 4, 4), 0.2))
        self.logvar = torch.nn.Parameter(torch.full((1, 4, 4), -2.0))

    def encode(self, y, augmentation=None):
        return Posterior(torch.zeros(len(y), 2, 1, 1), torch.zeros(len(y), 2, 1, 1))

    def decode(self, z, augmentation=None):
        return Prior(self.mean.expand(len(z), -1, -1, -1), self.logvar.expand(len(z), -1, -1, -1))


class Still(torch.nn.Module):
    """A velocity of zero."""

    def forward(self, x, t, z=None, labels=None, augmentation=None):
        return torch.zeros_like(x)


@pytest.fixture
def batch():
    images = torch.linspace(-1, 1, 3 * 16).view(3, 1, 4, 4)
    return Batch(ids=torch.arange(3), keys=["a", "b", "c"], images=images, labels=None)


def stage_of(joint, setting, auxiliary, before=None):
    before = before or copy.deepcopy(auxiliary)
    return joint.JointStage(CONFIG, auxiliary, before, joint.Setting.read(setting), Width(1.0, 0.3))


@pytest.mark.parametrize("setting", ["frozen", "joint:0"])
def test_without_a_regulariser_the_loss_is_the_toolkits(joint, batch, setting):
    auxiliary, noise = Auxiliary(), SampleNoise(0)
    found = stage_of(joint, setting, auxiliary).loss(Still(), batch, noise)
    expected = FlowStage(CONFIG, auxiliary).loss(Still(), batch, noise)
    assert found.loss.item() == expected.loss.item()
    assert not expected.loss.requires_grad


def test_the_gradient_goes_through_the_draw_and_not_through_the_weights(joint, batch):
    """The gradient of mean w (y - x)^2, with x = mu + sqrt(exp(l) + s^2) n: 2 w (x - y) dx, w held."""
    auxiliary, noise = Auxiliary(), SampleNoise(0)
    stage_of(joint, "joint:0", auxiliary).loss(Still(), batch, noise).loss.backward()
    n = noise.normal(batch.ids, "prior", (1, 4, 4))
    variance = auxiliary.logvar.detach().exp()
    wide = (variance + 0.3**2).sqrt()
    x = auxiliary.mean.detach() + wide * n
    common = 2 * (1 / wide).clamp(max=10) * (x - batch.images) / batch.images.numel()
    torch.testing.assert_close(auxiliary.mean.grad, common.sum(0))
    torch.testing.assert_close(auxiliary.logvar.grad, (common * n * variance / (2 * wide)).sum(0))


def test_the_regulariser_keeps_the_variance_near_the_initial_decoders_and_the_mean_free(joint, batch):
    auxiliary, before, noise = Auxiliary(), Auxiliary(), SampleNoise(0)
    with torch.no_grad():
        auxiliary.logvar += 0.5
        auxiliary.mean += 1
    stage = stage_of(joint, "joint:2", auxiliary, before)
    plain = stage_of(joint, "joint:0", auxiliary, before).loss(Still(), batch, noise)
    torch.testing.assert_close(stage.loss(Still(), batch, noise).loss, plain.loss + 2 * 0.5**2)
    gradient = torch.autograd.grad(
        stage.penalty(batch).sum(), [auxiliary.mean, auxiliary.logvar], allow_unused=True
    )
    assert gradient[0] is None
    assert (gradient[1] > 0).all()


def test_joint_nll_adds_the_variance_guided_loss(joint, batch):
    auxiliary, noise = Auxiliary(), SampleNoise(0)
    found = stage_of(joint, "joint_nll:0.1", auxiliary).loss(Still(), batch, noise)
    plain = stage_of(joint, "frozen", auxiliary).loss(Still(), batch, noise)
    vgl = variance_guided_loss(batch.images, *auxiliary.decode(torch.zeros(3, 2, 1, 1))).mean()
    torch.testing.assert_close(found.loss, plain.loss + 0.1 * vgl)
    torch.testing.assert_close(found.metrics["penalty"], vgl.detach())


@pytest.mark.parametrize("name", ["frozen:1", "joint", "joint:-1", "joint:x", "other:1"])
def test_meaningless_settings_are_refused(joint, name):
    with pytest.raises(argparse.ArgumentTypeError, match="give frozen, joint:L or joint_nll:L"):
        joint.Setting.read(name)
