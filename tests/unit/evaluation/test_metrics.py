"""The names of metrics, which features each of them looks at, and the two ways of taking them."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from lediflow.engine.group import Group
from lediflow.errors import UserError
from lediflow.evaluation.cmmd import cmmd
from lediflow.evaluation.config import EvaluateConfig, MetricsConfig
from lediflow.evaluation.embedding import FeatureSet
from lediflow.evaluation.features import unit
from lediflow.evaluation.metrics import halves_mmd, measure, metric_name
from lediflow.evaluation.modes.metrics import step_configs
from lediflow.evaluation.references import Reference

LITE0 = "efficientnet-lite0"


def feature_set(path, values: torch.Tensor) -> FeatureSet:
    save_file({"features": values}, path)
    return FeatureSet(path)


def drawn(count: int, seed: int, dim: int = 6, shift: float = 0.0) -> torch.Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed)) + shift


@pytest.fixture
def row(tmp_path):
    """The row of samples against a reference, by whichever estimator."""

    def measured(real, made, *, features=LITE0, held_out=None, **options):
        reference = feature_set(tmp_path / "real.safetensors", real)
        samples = feature_set(tmp_path / "made.safetensors", made)
        of = Reference("photographs", reference, np.arange(len(real)), held_out)
        return measure(of, samples, features, Group(), "cpu", MetricsConfig(**options)).row

    return measured


def test_only_clip_makes_it_cmmd():
    assert metric_name("mmd", "clip-vit-l14-336") == "CMMD"
    assert metric_name("mmd", LITE0) == "MMD (EfficientNet-Lite0)"


def test_only_inception_makes_it_fid_and_kid():
    assert (metric_name("frechet", "inception"), metric_name("kid", "inception")) == ("FID", "KID")
    assert metric_name("frechet", "efficientnet-lite2") == "Fréchet distance (EfficientNet-Lite2)"
    assert metric_name("kid", "open_clip:ViT-B-32") == "Kernel distance (ViT-B-32)"


def test_an_unknown_metric_is_refused_by_name():
    with pytest.raises(ValueError, match=r"'fid'.*'mmd', 'frechet', 'kid'"):
        metric_name("fid", LITE0)


def test_mmd_ignores_the_length_of_features_and_frechet_does_not(row):
    real, made = drawn(30, 0), drawn(30, 1)
    once, doubled = row(real, made), row(real, 2 * made)
    assert once["mmd"] == pytest.approx(cmmd(unit(real.double()), unit(made.double())))
    assert doubled["mmd"] == pytest.approx(once["mmd"])
    assert doubled["frechet"] > 1.5 * once["frechet"]


def test_the_interval_is_around_the_unbiased_value(row):
    found = row(drawn(40, 0), drawn(30, 1, shift=0.3))
    low, high = found["mmd_interval"]
    assert (low + high) / 2 == pytest.approx(found["mmd_unbiased"])
    assert (high - low) / 2 == pytest.approx(1.96 * found["mmd_standard_error"], rel=1e-3)


def test_results_say_how_many_images_they_rest_on(row):
    found = row(drawn(12, 0), drawn(9, 1))
    assert (found["reference_images"], found["sample_images"]) == (12, 9)


def test_streaming_agrees_with_exact_within_its_bound(row):
    real, made = drawn(3000, 0, dim=32), drawn(2500, 1, dim=32, shift=0.1)
    exact, streaming = row(real, made), row(real, made, estimator="streaming")
    assert streaming["mmd"] == pytest.approx(exact["mmd"], abs=streaming["mmd_error_bound"])
    assert streaming["mmd_unbiased"] == pytest.approx(exact["mmd_unbiased"], abs=streaming["mmd_error_bound"])
    assert streaming["frechet"] == pytest.approx(exact["frechet"], rel=1e-6)
    assert "precision" not in streaming and "kid" not in streaming


def test_too_few_images_are_refused_and_a_few_have_no_neighbourhoods(row):
    with pytest.raises(UserError, match=r"12 real and 2 generated.*at least 3"):
        row(drawn(12, 0), drawn(2, 1))
    assert "precision" not in row(drawn(12, 0), drawn(5, 1))
    assert "precision" in row(drawn(12, 0), drawn(6, 1))


def test_copies_are_reported_if_the_reference_was_trained_on(row):
    real = drawn(60, 0)
    held_out = np.arange(60) % 3 == 0
    training = real[torch.from_numpy(~held_out)]
    assert row(real, training[:20].clone(), held_out=held_out)["nearest_training"]["flag"]
    assert not row(real, drawn(20, 5), held_out=held_out)["nearest_training"]["flag"]
    assert "nearest_training" not in row(real, training[:20].clone())


@pytest.mark.parametrize("options", [{"estimator": "guess"}, {"neighbors": 0}])
def test_invalid_options_are_refused(options):
    (key,) = options
    with pytest.raises(ValueError, match=rf"metrics\.{key}="):
        MetricsConfig(**options)


def test_halves_of_one_set_are_as_close_as_chance_has_them(tmp_path):
    real = feature_set(tmp_path / "real.safetensors", drawn(400, 0))
    found = halves_mmd(Reference("photographs", real, np.arange(400), None), Group(), "cpu")
    far = cmmd(unit(drawn(200, 1)), unit(drawn(200, 2, shift=1.0)))
    assert found is not None and abs(found) < 0.02 * far


@pytest.mark.parametrize(("solver", "steps"), [("midpoint", [0, 1, 8, 2]), ("dopri5", [0, 8])])
def test_a_solver_that_ignores_its_steps_is_measured_once(solver, steps):
    notes: list[str] = []
    session = SimpleNamespace(
        command=EvaluateConfig(solver=solver, step_counts=[0, 1, 8, 2]), note=notes.append
    )
    assert [config.steps for config in step_configs(session)] == steps
    assert len(notes) == (solver == "dopri5")
