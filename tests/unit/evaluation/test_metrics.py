"""The names of metrics, and which features each of them looks at."""

import pytest
import torch

from lediflow.evaluation.cmmd import cmmd
from lediflow.evaluation.features import unit
from lediflow.evaluation.metrics import evaluate_features, metric_name


def test_only_clip_makes_it_cmmd():
    assert metric_name("mmd", "clip-vit-l14-336") == "CMMD"
    assert metric_name("mmd", "efficientnet-lite0") == "MMD (EfficientNet-Lite0)"


def test_frechet_distance_is_named_after_its_features():
    assert metric_name("frechet", "efficientnet-lite2") == "Fréchet distance (EfficientNet-Lite2)"


def test_an_unknown_metric_is_refused_by_name():
    with pytest.raises(ValueError, match=r"'fid'.*'mmd' and 'frechet'"):
        metric_name("fid", "efficientnet-lite0")


def test_mmd_ignores_the_length_of_features_and_frechet_does_not():
    generator = torch.Generator().manual_seed(0)
    reference, samples = (torch.randn(30, 6, generator=generator) for _ in range(2))
    once, doubled = (evaluate_features(reference, samples * k, "efficientnet-lite0") for k in (1, 2))
    assert once["mmd"] == pytest.approx(cmmd(unit(reference), unit(samples)))
    assert doubled["mmd"] == pytest.approx(once["mmd"], abs=1e-4)  # unit vectors are float32
    assert doubled["frechet"] > 1.5 * once["frechet"]


def test_results_say_how_many_images_they_rest_on():
    results = evaluate_features(torch.randn(12, 3), torch.randn(9, 3), "efficientnet-lite0")
    assert (results["reference_images"], results["sample_images"]) == (12, 9)
