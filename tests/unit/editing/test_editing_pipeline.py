"""The methods make what the functions behind the commands make, from and to PIL images."""

import numpy as np
import pytest
import torch
from harness.edited import SIZE, drawn, specs
from PIL import Image

from lediflow.codecs import bytes_to_signal
from lediflow.editing.photographs import as_pixels
from lediflow.editing.pipeline import EditingPipeline
from lediflow.errors import UserError

PHOTOGRAPH = Image.fromarray(np.random.default_rng(0).integers(0, 256, (SIZE, SIZE), dtype=np.uint8))
MASK = Image.new("1", (SIZE, SIZE))
MASK.paste(1, (4, 5, 11, 12))


@pytest.fixture(scope="module")
def pipeline():
    models = {name: drawn(spec, seed) for seed, (name, spec) in enumerate(specs(1).items())}
    return EditingPipeline(models["flow"], models["auxiliary"], models["sampler"], image_size=SIZE)


def test_inpainting_keeps_pixels_and_follows_the_generator(pipeline):
    options = {"image": PHOTOGRAPH, "mask_image": MASK, "num_images_per_prompt": 2}
    made = pipeline.inpaint(**options, generator=torch.Generator().manual_seed(5))
    outside = ~np.asarray(MASK)
    assert all(np.array_equal(np.asarray(one)[outside], np.asarray(PHOTOGRAPH)[outside]) for one in made)
    again = pipeline.inpaint(**options, generator=5)
    assert np.array_equal(*(np.stack(pictures) for pictures in (made, again)))
    assert not np.array_equal(np.asarray(made[0]), np.asarray(made[1]))


def test_each_image_of_a_list_is_repainted_as_if_it_was_alone(pipeline):
    generator = np.random.default_rng(1)
    images = [Image.fromarray(generator.integers(0, 256, (SIZE, SIZE), dtype=np.uint8)) for _ in range(4)]
    masks = [MASK.rotate(90 * turn) for turn in range(4)]
    options = {"num_images_per_prompt": 2, "output_type": "pt"}
    together = pipeline.inpaint(image=images, mask_image=masks, generator=[0, 1, 2, 3], **options)
    assert together.shape == (8, 1, SIZE, SIZE)
    for place in range(4):
        alone = pipeline.inpaint(image=images[place], mask_image=masks[place], generator=place, **options)
        assert (together[2 * place : 2 * place + 2] - alone).abs().max() <= 2 / 255
    assert len(pipeline.inpaint(image=images, mask_image=MASK)) == 4
    for bad in ({"mask_image": masks[:3]}, {"mask_image": MASK, "generator": [1, 2]}):
        with pytest.raises(UserError, match="entries for 4 images"):
            pipeline.inpaint(image=images, **bad)
    with pytest.raises(UserError, match="empty list"):
        pipeline.inpaint(image=[], mask_image=[])


def test_frames_and_versions(pipeline):
    frames = pipeline.interpolate(seeds=[0, 1], num_frames=3, path="spherical", output_type="pt")
    assert frames.shape == (3, 1, SIZE, SIZE) and frames.abs().max() <= 1
    assert [one.size for one in pipeline.vary(image=PHOTOGRAPH, num_images_per_prompt=2)] == [
        (SIZE, SIZE)
    ] * 2
    assert len(pipeline.vary(image=PHOTOGRAPH, keep="x")) == 1
    assert len(pipeline.interpolate(image=[PHOTOGRAPH, PHOTOGRAPH], num_frames=2)) == 2


def test_faces_of_a_larger_picture_are_replaced_by_key_and_name(pipeline):
    picture, mask = PHOTOGRAPH.resize((40, 30)), Image.new("1", (40, 30))
    for left in (3, 22):
        mask.paste(1, (left, 5, left + 12, 22))
    secret = {"key": bytes(range(32)), "image": picture, "mask_image": mask}
    (made,) = pipeline.anonymise(**secret, persons=["anna", "ben"])
    (again,) = pipeline.anonymise(**secret, persons=["anna", "carl"])
    made, again, given, hidden = (np.asarray(one) for one in (made, again, picture, mask))
    assert np.array_equal(made[~hidden], given[~hidden])
    left = hidden & (np.arange(40) < 20)
    assert np.array_equal(made[left], again[left]) and not np.array_equal(made, again)
    with pytest.raises(UserError, match="2 regions, persons 1"):
        pipeline.anonymise(**secret, persons=["anna"])


def test_a_strength_of_zero_gives_the_photograph_back(pipeline):
    """Up to the two steps of the solver, with networks of random weights."""
    options = {"image": PHOTOGRAPH, "solver": "dopri5", "output_type": "pt"}
    near, new = (pipeline.vary(**options, keep="z", strength=strength) for strength in (0.0, 1.0))
    photograph = bytes_to_signal(as_pixels(PHOTOGRAPH))
    assert (near - photograph).abs().max() < 0.05 < (new - photograph).abs().mean()
    repainted = pipeline.inpaint(**options, mask_image=MASK, strength=0.0)
    assert (repainted - photograph).abs().mean() < 0.05


def test_the_mask_processor_softens_masks(pipeline):
    soft = pipeline.mask_processor.blur(MASK, blur_factor=2)
    assert soft.mode == "L" and 0 < np.asarray(soft)[3, 7] < 255
    made = [
        pipeline.inpaint(image=PHOTOGRAPH, mask_image=mask, blur=blur)[0]
        for mask, blur in ((soft, 0), (MASK, 2))
    ]
    assert np.array_equal(*(np.asarray(one) for one in made))


def test_an_attribute_is_found_and_applied(pipeline):
    generator = np.random.default_rng(3)
    bright, dark = (
        [
            Image.fromarray(np.clip(level + generator.normal(0, 20, (SIZE, SIZE)), 0, 255).astype(np.uint8))
            for _ in range(8)
        ]
        for level in (190, 60)
    )
    direction = pipeline.find_direction(with_images=bright, without_images=dark, space="z")
    assert direction.test["auc"] == 1
    made = pipeline.attribute(image=PHOTOGRAPH, direction=direction, strengths=[-1.0, 1.0], x_from="prior")
    assert len(made) == 2 and not np.array_equal(*(np.asarray(one) for one in made))
    with pytest.raises(UserError, match="without_images has 3 different"):
        pipeline.find_direction(with_images=bright, without_images=dark[:3])


def test_what_does_not_fit_is_refused(pipeline):
    with pytest.raises(UserError, match="mask_image has"):
        pipeline.inpaint(image=PHOTOGRAPH, mask_image=MASK.resize((8, 8)))
    with pytest.raises(UserError, match="give two pictures"):
        pipeline.interpolate()
    baseline = EditingPipeline(drawn(specs(1)["flow"], 0), None, None, image_size=SIZE)
    with pytest.raises(UserError, match="Gaussian baseline"):
        baseline.vary(image=PHOTOGRAPH)
