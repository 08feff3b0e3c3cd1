"""Pictures that callers give come out as files do when they are decoded; anything else is refused with what to give."""

import re

import numpy as np
import pytest
import torch
from harness.edited import SIZE, drawn, specs
from PIL import Image

from lediflow.data.photograph import TURNS
from lediflow.editing.given import seed_of, upright
from lediflow.editing.pipeline import EditingPipeline
from lediflow.errors import UserError

LEVELS = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE), dtype=np.uint8)
PHOTOGRAPH = Image.fromarray(LEVELS)
MASK = Image.new("L", (SIZE, SIZE))
MASK.paste(255, (4, 5, 11, 12))
DEEP = Image.fromarray(LEVELS.astype(np.uint16) * 257)


@pytest.fixture(scope="module")
def pipeline():
    models = {name: drawn(spec, seed) for seed, (name, spec) in enumerate(specs(1).items())}
    return EditingPipeline(models["flow"], models["auxiliary"], models["sampler"], image_size=SIZE)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_a_picture_is_turned_as_its_orientation_says(orientation, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    PHOTOGRAPH.save(tmp_path / "a.png", exif=exif)
    expected = PHOTOGRAPH.transpose(TURNS[orientation]) if orientation in TURNS else PHOTOGRAPH
    with Image.open(tmp_path / "a.png") as opened:
        assert np.array_equal(np.asarray(upright(opened, "image")), np.asarray(expected))


def test_16_bits_keep_their_tones(tmp_path):
    DEEP.save(tmp_path / "deep.png")
    with Image.open(tmp_path / "deep.png") as opened:
        for given in (DEEP, opened):
            assert np.array_equal(np.asarray(upright(given, "image").convert("L")), LEVELS)


def test_a_mask_that_is_a_jpeg_is_black_or_white(pipeline, tmp_path, caplog):
    MASK.save(tmp_path / "mask.jpg", quality=60)
    with Image.open(tmp_path / "mask.jpg") as opened:
        made = [pipeline.inpaint(image=PHOTOGRAPH, mask_image=mask)[0] for mask in (MASK, opened)]
    assert np.array_equal(*made)
    assert "mask_image is a JPEG" in caplog.text


def test_a_large_picture_and_its_mask_are_scaled_together(pipeline):
    size = (6 * SIZE, 4 * SIZE)
    made = pipeline.inpaint(
        image=PHOTOGRAPH.resize(size, Image.Resampling.NEAREST),
        mask_image=MASK.resize(size, Image.Resampling.NEAREST), fit="centre",
    )  # fmt: skip
    assert made[0].size == (SIZE, SIZE)


@pytest.mark.parametrize(
    ("options", "words"),
    [({"image": LEVELS}, r"image is a ndarray; give a PIL image"),
     ({"image": "a.png"}, r"image is a str; give a PIL image"),
     ({"mask_image": torch.zeros(1)}, r"mask_image is a Tensor; give a PIL image"),
     ({"image": PHOTOGRAPH.convert("F")}, r"image is .*floating-point"),
     ({"image": PHOTOGRAPH.resize((40, 30))}, r"has 40 x 30 pixels, the models 16 x 16.*fit=centre"),
     ({"image": DEEP}, r"16 bits per channel"),
     ({"image": Image.merge("LA", [PHOTOGRAPH, MASK])}, r"transparent pixels"),
     ({"image": Image.merge("RGB", [PHOTOGRAPH, MASK, MASK])}, r"colour picture"),
     ({"mask_image": MASK.resize((8, 8))}, r"mask_image has \(8, 8\) pixels"),
     ({"mask_image": MASK.point(lambda level: level // 255)}, r"no level above 1"),
     ({"num_images_per_prompt": 0}, r"num_images_per_prompt=0 must be at least 1"),
     ({"blur": float("nan")}, r"blur=nan must be"),
     ({"generator": "seven"}, r"generator"),
     ({"output_type": "np"}, r"output_type='np' is unknown; use one of pil, pt"),
     ({"fit": "crop"}, r"fit='crop' is unknown")],
)  # fmt: skip
def test_what_does_not_fit_is_refused(pipeline, options, words):
    with pytest.raises((UserError, ValueError), match=words):
        pipeline.inpaint(**{"image": PHOTOGRAPH, "mask_image": MASK, **options})


def test_a_generator_stands_for_its_initial_seed():
    assert seed_of(torch.Generator().manual_seed(5)) == seed_of(5) == 5
    assert seed_of(None) == 0
    with pytest.raises(UserError, match=re.escape("generator is a float; give a seed")):
        seed_of(1.5)
