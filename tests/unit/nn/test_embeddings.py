import math

import torch

from lediflow.nn.embeddings import FourierFeatures, MappingNetwork
from lediflow.nn.specs import MappingSpec


def test_fourier_features_are_cosines_then_sines_of_two_pi_w_x():
    features = FourierFeatures(1, 6)
    angle = 2 * math.pi * 0.3 * features.weight[:, 0]
    torch.testing.assert_close(features(torch.tensor([[0.3]]))[0], torch.cat((angle.cos(), angle.sin())))


def test_autocast_leaves_the_phases_in_float32():
    features, t = FourierFeatures(1, 64), torch.rand(5, 1)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(features(t), features(t.double()).float())


def test_a_fresh_mapping_network_only_normalises():
    x = 5 * torch.randn(3, 16)
    mapped = MappingNetwork(MappingSpec(width=16))(x)
    torch.testing.assert_close(mapped, x / x.square().mean(dim=1, keepdim=True).sqrt(), atol=1e-5, rtol=1e-5)
