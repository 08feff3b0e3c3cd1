"""What a run's models cannot do is said in the tab, and the rest works."""

import numpy as np
import pytest
from harness.edited import SIZE, drawn, save_random_taesd, save_tiny_runs, specs, tiny_pipeline
from harness.studios import canvas, stroke
from PIL import Image

from lediflow.codecs import CodecConfig, build_codec
from lediflow.config.composition.schema import StudioCommand
from lediflow.errors import UserError
from lediflow.models import VelocitySpec, save_model
from lediflow.studio.models import INPAINT, INTERPOLATE, SAMPLE, VARY, Models, load_models
from lediflow.studio.tasks import Sliders, Studio

TABS = (SAMPLE, INTERPOLATE, INPAINT, VARY)


def models(root, sampler="sampler"):
    return load_models(
        StudioCommand(run=str(root / "flow"), sampler=sampler and str(root / sampler), device="cpu")
    )


def save_baseline(root):
    conditioned = specs(1)["flow"]
    spec = VelocitySpec(
        image_channels=1, patch_size=4, levels=conditioned.levels, mapping=conditioned.mapping
    )
    facts = {
        "stage": "flow", "prior": "gaussian", "image_size": SIZE, "codec": {"name": "pixels"}, "parent": None,
    }  # fmt: skip
    save_model(drawn(spec, 0), root / "flow" / "export", facts)
    return root


def test_a_learned_prior_can_do_all(tmp_path):
    found = models(save_tiny_runs(tmp_path))
    assert [found.reason_against(tab) for tab in TABS] == [None] * 4
    assert [row[0] for row in found.table()] == ["flow", "latent sampler", "auxiliary"]
    assert [row[3] for row in found.table()] == list(found.weights.values())
    assert "a learned prior, 16 x 16 grey" in found.line()


def test_a_gaussian_baseline_samples_and_says_why_it_does_nothing_else(tmp_path):
    found = models(save_baseline(tmp_path), sampler=None)
    assert found.reason_against(SAMPLE) is None
    for tab in TABS[1:]:
        assert "Gaussian baseline: it has no latent" in found.reason_against(tab)
    (tmp_path / "made").mkdir()
    made = Studio(found, tmp_path / "made").sample(Sliders(0, 2, "euler", 1.0), 2)
    assert len(made.files) == 2 and len(found.table()) == 1 and "sampler=" not in made.text


def test_flow_maps_have_their_reasons(tmp_path):
    maps = models(save_tiny_runs(tmp_path / "maps", is_flow_map=True))
    assert maps.reason_against(SAMPLE) is None and maps.reason_against(VARY) is None
    assert "sampler=" in maps.reason_against(INTERPOLATE) and "run=" in maps.reason_against(INPAINT)
    (tmp_path / "made").mkdir()
    with pytest.raises(UserError, match="is a flow map"):
        Studio(maps, tmp_path / "made").vary(Sliders(0, 1, "jump", 1.0), "a.png", "x", 1)


def test_models_of_latents_work_on_photographs_of_the_codecs_size(tmp_path):
    codec = build_codec(CodecConfig(name="taesd", path=str(save_random_taesd(tmp_path / "taesd"))))
    found = Models(
        tiny_pipeline(channels=4, codec=codec), StudioCommand(run="flow", device="cpu"), "taesd", {}
    )
    side = 8 * SIZE
    assert found.size == side and f"{side} x {side} RGB, latents of taesd" in found.line()
    assert [found.reason_against(tab) for tab in TABS] == [None] * 4
    photograph = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    Image.fromarray(photograph).save(tmp_path / "a.png")
    studio, sliders, file = Studio(found, tmp_path), Sliders(0, 2, "midpoint", 1.0), str(tmp_path / "a.png")
    painted = canvas(stroke(slice(128, 256), slice(192, 320)))  # 4 times as large as the photograph
    made = studio.inpaint(sliders, file, False, painted, None, 0.0, "masked", 1)
    outside = np.ones((side, side), bool)
    outside[32:64, 48:80] = False
    result = np.asarray(Image.open(made.files[0]))
    assert np.array_equal(result[outside], photograph[outside])
    assert not np.array_equal(result[~outside], photograph[~outside])
    assert np.asarray(Image.open(studio.vary(sliders, file, "z", 1).files[1])).shape == (side, side, 3)
