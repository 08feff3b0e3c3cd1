"""Photographs through a codec: masks of latents, fills that hide, bytes outside for every solver."""

import numpy as np
import pytest
import torch
from harness.edited import SIZE, save_random_taesd, tiny_pipeline
from PIL import Image

from lediflow.codecs import CodecConfig, PixelCodec, build_codec, bytes_to_signal
from lediflow.editing.attributes import moved_along
from lediflow.editing.codec_space import codec_of, data_of, picture_shape, pooled, surroundings
from lediflow.editing.directions import Direction
from lediflow.editing.inpainting import inpaint, measures, prepared
from lediflow.editing.pipeline import EditingPipeline
from lediflow.editing.strength import own_of
from lediflow.editing.variation import varied
from lediflow.errors import UserError
from lediflow.flow.solvers import SOLVERS
from lediflow.sampling import LeDiFlowPipeline, SamplingConfig

SIDE = 8 * SIZE
AMOUNT = torch.zeros(1, 1, SIDE, SIDE)
AMOUNT[..., 30:70, 41:90] = 1
CONFIG = SamplingConfig()


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    folder = save_random_taesd(tmp_path_factory.mktemp("taesd"))
    return tiny_pipeline(channels=4, codec=build_codec(CodecConfig(name="taesd", path=str(folder))))


@pytest.fixture(scope="module")
def image():
    return torch.randint(0, 256, (3, SIDE, SIDE), dtype=torch.uint8, generator=torch.manual_seed(0))


def repainted(pipeline, image, numbers, config=CONFIG, z_from="masked", amount=AMOUNT, **options):
    return inpaint(pipeline, prepared(pipeline, image, amount, config, z_from, **options), numbers, config)


def test_photographs_are_eight_times_as_large_as_latents(pipeline, image):
    assert picture_shape(pipeline) == (SIDE, 3)
    y = data_of(pipeline, bytes_to_signal(image)[None])
    assert y.shape == (1, 4, SIZE, SIZE)
    assert picture_shape(tiny_pipeline()) == (SIZE, 1)
    assert isinstance(codec_of(tiny_pipeline()), PixelCodec)


def test_a_latent_is_repainted_if_any_of_its_pixels_is(pipeline):
    expected = torch.zeros(SIZE, SIZE)
    for row, column in AMOUNT[0, 0].nonzero().tolist():
        expected[row // 8, column // 8] = 1
    assert torch.equal(pooled(pipeline, AMOUNT)[0, 0], expected)
    dot = torch.zeros(1, 1, SIDE, SIDE)
    dot[..., 17, 100] = 0.25
    assert pooled(pipeline, dot).nonzero()[:, 2:].tolist() == [[2, 12]]
    assert pooled(pipeline, dot).max() == 0.25
    assert torch.equal(pooled(tiny_pipeline(), AMOUNT), AMOUNT)


def test_a_mask_that_keeps_pixels_but_no_latent_is_refused(pipeline, image):
    dots = torch.zeros(1, 1, SIDE, SIDE)
    dots[..., 3::8, 5::8] = 1
    with pytest.raises(UserError, match="leaves no latent as it is: each stands for 8 x 8 pixels"):
        prepared(pipeline, image, dots, CONFIG, "masked")


@pytest.mark.parametrize("solver", SOLVERS)
def test_bytes_outside_of_the_mask_are_those_of_the_image_and_latents_stay_on_their_line(
    pipeline, image, solver
):
    made = repainted(pipeline, image, [0, 1], SamplingConfig(solver=solver, steps=1))
    kept = (AMOUNT[0] == 0).expand_as(image)
    assert made.pixels.shape == (2, 3, SIDE, SIDE)
    assert all(torch.equal(one[kept], image[kept]) for one in made.pixels)
    assert not torch.equal(made.pixels[0], made.pixels[1])
    assert made.line_error < 1e-4


def test_without_pasting_the_whole_picture_is_the_codecs(pipeline, image):
    pasted, whole = (repainted(pipeline, image, [0], is_pasted=value).pixels[0] for value in (True, False))
    inside = (AMOUNT[0] == 1).expand_as(image)
    assert (pasted[inside].int() - whole[inside].int()).abs().max() <= 1
    assert not torch.equal(whole[~inside], image[~inside])


def test_a_soft_mask_mixes_photograph_and_result(pipeline, image):
    soft = AMOUNT.clone()
    soft[..., 30, 41:90] = 0.5
    row = (soft[0] == 0.5).expand_as(image)
    task = prepared(pipeline, image, soft, CONFIG, "image")
    mixed = inpaint(pipeline, task, [0], CONFIG).pixels[0][row].double()
    whole = inpaint(pipeline, task._replace(is_pasted=False), [0], CONFIG).pixels[0][row].double()
    assert (mixed - (whole + image[row]) / 2).abs().max() <= 1


@pytest.mark.parametrize(
    ("z_from", "strength", "leaks"),
    [("image", 1.0, True), ("masked", 1.0, False), ("sampler", 1.0, False), ("sampler", 0.9, True)],
)
def test_the_hidden_part_is_seen_only_by_z_from_image_and_strengths_below_one(
    pipeline, image, z_from, strength, leaks
):
    other = torch.where(AMOUNT[0] == 1, 255 - image, image)
    pictures = [
        repainted(pipeline, one, [0], z_from=z_from, strength=strength).pixels for one in (image, other)
    ]
    assert torch.equal(*pictures) != leaks


def test_surroundings_continue_what_is_kept():
    flat = torch.full((1, 3, 24, 24), 0.3)
    amount = torch.zeros(1, 1, 24, 24)
    amount[..., 5:20, 3:22] = 1
    torch.testing.assert_close(surroundings(torch.where(amount == 1, 9.0, flat), amount), flat)
    ramp = torch.linspace(-1, 1, 24).expand(1, 1, 24, 24)
    filled = surroundings(ramp, amount)
    assert torch.equal(filled[amount == 0], ramp[amount == 0])
    middle = filled[0, 0, 12]
    assert middle[3:12].mean() < middle[13:22].mean() and filled.abs().max() <= 1


def test_the_record_has_the_seam_of_results_and_photograph(pipeline, image):
    task = prepared(pipeline, image, AMOUNT, CONFIG, "masked")
    made = inpaint(pipeline, task, [0, 1], CONFIG)
    found = measures(task, made.pixels)["seam"]
    assert len(found["results"]) == 2 and found["photograph"] == pytest.approx(1, abs=0.15)


def test_versions_and_attributes_go_through_the_codec(pipeline, image):
    own = own_of(pipeline, data_of(pipeline, bytes_to_signal(image)[None]), CONFIG, "")
    assert varied(pipeline, own, torch.arange(2), CONFIG, keep="z", strength=1.0).images.shape == (
        2,
        3,
        SIDE,
        SIDE,
    )
    vector = torch.zeros(2, 4, 4)
    vector[0, 0, 0] = 1
    direction = Direction(vector, "z", "means", 0.5, 1.0, 1.0, {})
    along = moved_along(pipeline, image[None], direction, [1.0], CONFIG, x_from="prior", batch_size=4)
    assert along.images.shape == (1, 1, 3, SIDE, SIDE)


def test_the_methods_of_a_saved_pipeline_take_its_codec(pipeline, image, tmp_path):
    pipeline.save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"holds models of latents of .*, given is None; give the codec"):
        EditingPipeline.from_pretrained(tmp_path)
    loaded = EditingPipeline.from_pretrained(tmp_path, codec=pipeline.codec)
    photograph = Image.fromarray(image.permute(1, 2, 0).numpy())
    mask = Image.fromarray((AMOUNT[0, 0] * 255).to(torch.uint8).numpy())
    (made,) = loaded.inpaint(image=photograph, mask_image=mask)
    kept = AMOUNT[0, 0].numpy() == 0
    assert np.array_equal(np.asarray(made)[kept], np.asarray(photograph)[kept])
    assert loaded.vary(image=photograph)[0].size == (SIDE, SIDE)
    with pytest.raises(UserError, match="needs models of pixels"):
        loaded.anonymise(image=photograph, mask_image=mask, key=b"0" * 32, persons=["a"])


def test_a_pipeline_with_a_decoder_alone_cannot_read_photographs(pipeline, image):
    half = LeDiFlowPipeline(
        pipeline.velocity,
        pipeline.auxiliary,
        pipeline.latent_sampler,
        image_size=SIZE,
        decode=pipeline.decode,
    )
    with pytest.raises(UserError, match="only its decoder"):
        data_of(half, bytes_to_signal(image)[None])
