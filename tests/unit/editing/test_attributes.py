"""Photographs along a direction: strength 0 returns them, the measures are those of known changes, files come back."""

import json

import pytest
import torch
from harness.edited import SIZE, tiny_pipeline
from safetensors.torch import save_file

from lediflow.codecs import bytes_to_signal, signal_to_bytes
from lediflow.editing.attributes import found_between, images_from, measured, moved_along
from lediflow.editing.direction_files import FILE, direction_bytes, read_direction
from lediflow.editing.directions import Direction
from lediflow.editing.inversion import encoded, latents_to_noise, noise_to_latents
from lediflow.editing.picture_sets import set_of
from lediflow.editing.strength import Own
from lediflow.errors import UserError
from lediflow.sampling import SamplingConfig

CONFIG = SamplingConfig()
STRENGTHS = [-1.0, 0.0, 2.0]
WEIGHTS = {"flow": "f" * 64, "auxiliary": "a" * 64, "latent_sampler": "b" * 64}


@pytest.fixture(scope="module")
def pipeline():
    return tiny_pipeline()


@pytest.fixture(scope="module")
def pixels():
    return torch.randint(0, 256, (2, 1, SIZE, SIZE), dtype=torch.uint8, generator=torch.manual_seed(0))


def unit_direction(space="z"):
    vector = torch.nn.functional.normalize(torch.randn(32, generator=torch.manual_seed(1)), dim=0)
    test = {"auc": 0.9, "auc_low": 0.8, "auc_high": 1.0}
    return Direction(vector.reshape(2, 4, 4), space, "means", 0.25, 2.0, 3.0, test)


def pictures(option, brightness, seed):
    """Eight noisy pictures of one brightness."""
    generator = torch.manual_seed(seed)
    drawn = (
        (brightness + 20 * torch.randn(8, 1, SIZE, SIZE, generator=generator)).clamp(0, 255).to(torch.uint8)
    )
    return set_of(option, {f"{seed}{place}": (str(place), one) for place, one in enumerate(drawn)}, 0, [])


def test_strength_zero_returns_the_photograph_from_its_own_noise(pipeline, pixels):
    """Up to dopri5 there and back, enlarged by a flow of random weights."""
    config = SamplingConfig(solver="dopri5")
    made = moved_along(pipeline, pixels, unit_direction(), [0.0], config, x_from="image", batch_size=64)
    torch.testing.assert_close(made.images[:, 0], bytes_to_signal(pixels), rtol=0, atol=0.05)
    assert list(made.own.inverted) == ["x"]
    assert all(len(errors) == 2 for errors in made.own.inverted["x"].errors.values())


def test_in_w_the_noise_is_moved_and_mapped_back(pipeline, pixels):
    direction, method = unit_direction("w"), CONFIG.latent_method(is_flow_map=False)
    made = moved_along(pipeline, pixels, direction, [2.0], CONFIG, x_from="prior", batch_size=64)
    w = latents_to_noise(pipeline, encoded(pipeline, bytes_to_signal(pixels)), method).noise
    z = noise_to_latents(pipeline, w + 2.0 * 0.25 * direction.vector, method)
    torch.testing.assert_close(
        made.images[:, 0], images_from(pipeline, z, Own(z, {}), CONFIG), rtol=0, atol=1e-3
    )
    assert list(made.own.inverted) == ["w"]


def test_images_are_those_of_the_moved_latents(pipeline, pixels):
    direction = unit_direction()
    made = moved_along(pipeline, pixels, direction, STRENGTHS, CONFIG, x_from="prior", batch_size=64)
    z = encoded(pipeline, bytes_to_signal(pixels[1:])) + 2.0 * 0.25 * direction.vector
    start = pipeline.start_from(torch.zeros(1, dtype=torch.int64), z, CONFIG)
    expected = pipeline.integrate(start, CONFIG).x.clamp(-1, 1)
    torch.testing.assert_close(made.images[1, 2:], expected, rtol=0, atol=1e-3)
    assert made.own.inverted == {}


def test_each_picture_alone_is_that_of_the_batch(pipeline, pixels):
    direction = unit_direction("w")
    both, alone = (
        moved_along(pipeline, pixels, direction, STRENGTHS, CONFIG, x_from="prior", batch_size=size)
        for size in (64, 1)
    )
    levels = [signal_to_bytes(one.images).int() for one in (both, alone)]
    assert (levels[0] - levels[1]).abs().max() <= 1


def test_measures_are_those_of_known_changes(monkeypatch, pipeline):
    """Features that are given: one unit along the direction, and spread across it."""
    direction = unit_direction()
    across = torch.zeros(2, 4, 4)
    across.view(-1)[0] = 1
    across -= (across * direction.vector).sum() * direction.vector
    across *= 3.0 / across.norm()
    base = torch.randn(1, 2, 4, 4, generator=torch.manual_seed(3))
    features = torch.cat([base, base + 0.25 * direction.vector, base - 0.5 * direction.vector + across])
    monkeypatch.setattr("lediflow.editing.attributes.encoded", lambda pipeline, images: features)
    images = torch.zeros(3, 1, SIZE, SIZE)
    images[1] += 2 / 127.5
    found = measured(pipeline, images, direction, CONFIG, 1)
    torch.testing.assert_close(found["moved"], torch.tensor([[1.0, -2.0]]), rtol=0, atol=1e-5)
    torch.testing.assert_close(found["drift"], torch.tensor([[0.0, 1.0]]), rtol=0, atol=1e-4)
    torch.testing.assert_close(found["pixel_change"], torch.tensor([[2.0, 0.0]]), rtol=0, atol=1e-4)


@pytest.mark.parametrize(("space", "estimator"), [("z", "means"), ("z", "probe"), ("w", "means")])
def test_brightness_is_found_and_held_out_pictures_are_never_fitted_on(pipeline, space, estimator):
    having, lacking = pictures("with", 190, 1), pictures("without", 60, 2)
    options = {"space": space, "estimator": estimator, "batch_size": 3}
    found = found_between(pipeline, having, lacking, CONFIG, **options)
    assert found.direction.test["auc"] == 1 and found.warnings == []
    assert found.held_out.shape == (8, 1, SIZE, SIZE)
    swapped = [
        one._replace(pixels=torch.cat([one.pixels[:4], other.pixels[4:]]))
        for one, other in ((having, lacking), (lacking, having))
    ]
    other = found_between(pipeline, *swapped, CONFIG, **options)
    torch.testing.assert_close(other.direction.vector, found.direction.vector, rtol=0, atol=1e-4)
    assert other.direction.test["auc"] == 0
    assert "on the other side" in other.warnings[0]


def test_near_identical_pictures_are_warned_about(pipeline):
    having, lacking = pictures("with", 190, 1), pictures("without", 60, 2)
    having.pixels[5] = having.pixels[0]
    found = found_between(pipeline, having, lacking, CONFIG, space="z", estimator="means", batch_size=8)
    assert found.sets["near_identical"] == 1
    assert "near-identical" in found.warnings[0]


def test_a_stored_direction_comes_back_with_the_same_models_only(tmp_path):
    direction, sets = unit_direction("w"), {"with": {"sha256": "c"}}
    path = tmp_path / FILE
    path.write_bytes(direction_bytes(direction, WEIGHTS, sets))
    stored = read_direction(str(path))
    assert torch.equal(stored.direction.vector, direction.vector)
    assert (stored.direction._replace(vector=None), stored.sets) == (direction._replace(vector=None), sets)
    stored.check_models({**WEIGHTS, "flow": "another"})
    for name, option in (("auxiliary", "run="), ("latent_sampler", "sampler=")):
        with pytest.raises(UserError, match=f"another {name.replace('_', ' ')} .*than {option}"):
            stored.check_models({**WEIGHTS, name: "e" * 64})


def test_a_direction_in_z_does_not_depend_on_the_latent_sampler(tmp_path):
    (tmp_path / FILE).write_bytes(direction_bytes(unit_direction("z"), WEIGHTS, {}))
    read_direction(str(tmp_path / FILE)).check_models({**WEIGHTS, "latent_sampler": "other"})


@pytest.mark.parametrize("content", [None, b"", b"no tensors", "tensors", "metadata"])
def test_files_that_are_no_directions_are_refused(content, tmp_path):
    path = tmp_path / FILE
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content == "tensors":
        save_file({"weight": torch.zeros(3)}, path)
    elif content == "metadata":
        save_file({"direction": torch.zeros(3)}, path, {"lediflow": json.dumps({"space": "z"})})
    with pytest.raises(UserError, match=r"direction=.* is not a file that `lediflow.edit attribute` wrote"):
        read_direction(str(path))
