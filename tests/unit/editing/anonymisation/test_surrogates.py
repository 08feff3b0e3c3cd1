"""A surrogate is a function of key, person and what is visible; strength mixes in the face's own noise."""

import pytest
import torch
from harness.edited import SIZE, tiny_pipeline

from lediflow.editing.anonymisation.keys import Key
from lediflow.editing.anonymisation.surrogates import View, surrogate
from lediflow.sampling import SamplingConfig

KEY, OTHER_KEY = Key(bytes(range(32))), Key(bytes(range(100, 132)))
AMOUNT = torch.zeros(1, 1, SIZE, SIZE)
AMOUNT[..., 3:13, 4:12] = 1
CONFIG = SamplingConfig(seed=3)


@pytest.fixture(scope="module")
def pipeline():
    return tiny_pipeline()


def view(seed=0, amount=AMOUNT):
    whole = torch.randint(0, 256, (1, SIZE, SIZE), dtype=torch.uint8, generator=torch.manual_seed(seed))
    return View(torch.where(amount[0] == 1, 0, whole).to(torch.uint8), amount, whole)


def test_one_person_one_surrogate(pipeline):
    one, again = (surrogate(pipeline, view(), KEY, "anna", 1.0, CONFIG).pixels for _ in range(2))
    assert torch.equal(one, again)
    for key, person, seed in ((KEY, "ben", 3), (OTHER_KEY, "anna", 3), (KEY, "anna", 4)):
        other = surrogate(pipeline, view(), key, person, 1.0, SamplingConfig(seed=seed))
        assert not torch.equal(one, other.pixels)


def test_at_strength_1_nothing_of_the_face_enters(pipeline):
    one, two = view(), view()._replace(whole=view(seed=9).whole)
    made = [surrogate(pipeline, given, KEY, "anna", 1.0, CONFIG) for given in (one, two)]
    assert torch.equal(made[0].pixels, made[1].pixels)
    assert made[0].own is None
    half = [surrogate(pipeline, given, KEY, "anna", 0.5, CONFIG).pixels for given in (one, two)]
    assert not torch.equal(*half)


def test_visible_pixels_keep_their_bytes_at_every_strength(pipeline):
    for strength in (0.3, 1.0):
        made = surrogate(pipeline, view(), KEY, "anna", strength, CONFIG)
        kept = AMOUNT[0] == 0
        assert torch.equal(made.pixels[kept], view().whole[kept])
        assert made.line_error < 1e-5


def test_at_strength_0_the_face_s_own_z_comes_back(pipeline):
    config = SamplingConfig(latent_solver="dopri5")
    own = surrogate(pipeline, view(), KEY, "anna", 0.0, config).own
    assert own.errors["dopri5"][0] < 1e-3


def test_a_view_that_is_hidden_wholly_becomes_a_whole_picture(pipeline):
    made = surrogate(pipeline, view(amount=torch.ones_like(AMOUNT)), KEY, "anna", 1.0, CONFIG)
    assert made.pixels.shape == (1, SIZE, SIZE) and made.line_error == 0
