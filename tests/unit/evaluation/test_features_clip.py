"""CLIP's eyes: preprocessing as CMMD's reference has it, weights from files alone, any tower of open_clip."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from lediflow.compat import fix_torchvision
from lediflow.errors import UserError
from lediflow.evaluation.features import FeaturesConfig, build_features
from lediflow.evaluation.features.clip import MEAN, STD, ClipFeatures, preprocess

GOLDEN = Path(__file__).parents[2] / "golden" / "clip_preprocessing.safetensors"
SIZES = (64, 256, 336, 512)
EVERY = 24  # pixels between those that the golden file keeps
TEXT = {"context_length": 8, "vocab_size": 64, "width": 16, "heads": 1, "layers": 1}
TOWERS = {
    "tiny-vit": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16},
    "tiny-resnet": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "patch_size": None},
    "tiny-timm": {
        "image_size": 32, "timm_model_name": "test_vit", "timm_model_pretrained": False, "timm_pool": "token",
        "timm_proj": "linear",
    },
}  # fmt: skip


def drawn(size: int) -> np.ndarray:
    """Bytes of a picture by formula: waves that are fine on one side, a hard edge, a corner of checks."""
    u = np.arange(size) / size
    waves = [127.5 + 127.5 * np.sin(k * (9 * u[:, None] + 31 * u[None] ** 3)) for k in (1, 2, 3)]
    picture = np.stack(waves, axis=-1)
    picture[u > 0.7, : size // 3] = (250, 20, 90)
    checks = 255 * ((np.arange(size // 4)[:, None] + np.arange(size // 4)[None]) % 2)
    picture[: size // 4, : size // 4] = checks[..., None]
    return np.rint(picture).astype(np.uint8)


def reference(picture: np.ndarray) -> np.ndarray:
    """What CMMD's reference does with a square picture, by Pillow and NumPy; made the golden file."""
    resized = np.asarray(Image.fromarray(picture).resize((336, 336), Image.Resampling.BICUBIC))
    return ((resized / np.float32(255) - np.float32(MEAN)) / np.float32(STD)).transpose(2, 0, 1)


def signal(picture: np.ndarray) -> Tensor:
    return torch.from_numpy(picture).permute(2, 0, 1)[None] / 127.5 - 1


@pytest.mark.parametrize("size", SIZES)
def test_preprocessing_is_the_references_on_every_pixel(size):
    ours = preprocess(signal(drawn(size)), 336)[0]
    np.testing.assert_allclose(ours, reference(drawn(size)), atol=1e-6)  # equal bytes, float32


@pytest.mark.parametrize("size", SIZES)
def test_preprocessing_is_that_of_the_golden_file(size):
    ours = preprocess(signal(drawn(size)), 336)[0, :, ::EVERY, ::EVERY]
    torch.testing.assert_close(ours, load_file(GOLDEN)[f"from_{size}"], atol=1e-6, rtol=0)


@pytest.mark.parametrize("size", [200, 336])
def test_square_images_are_preprocessed_like_in_open_clip(open_clip, size):
    transform = open_clip.image_transform(336, is_train=False, mean=MEAN, std=STD)
    ours = preprocess(signal(drawn(size)), 336)[0]
    torch.testing.assert_close(ours, transform(Image.fromarray(drawn(size))), atol=1e-6, rtol=0)


def test_oblong_images_are_refused_rather_than_cropped():
    with pytest.raises(UserError, match=r"30 x 10.*crop them first"):
        preprocess(torch.zeros(1, 3, 10, 30), 336)


@pytest.fixture(scope="module")
def open_clip(tmp_path_factory):
    """The package, with tiny architectures added to those it knows."""
    fix_torchvision()
    package = import_module("open_clip")
    folder = tmp_path_factory.mktemp("architectures")
    for name, vision in TOWERS.items():
        config = {"embed_dim": 16, "vision_cfg": vision, "text_cfg": TEXT}
        (folder / f"{name}.json").write_text(json.dumps(config))
    package.add_model_config(folder)
    return package


@pytest.fixture
def saved(open_clip, tmp_path):
    """A model of an architecture with its weights in a file."""

    def save(architecture: str, suffix: str = ".pt"):
        torch.manual_seed(0)
        network = open_clip.create_model(architecture).eval()
        path = tmp_path / f"{architecture}{suffix}"
        if suffix == ".safetensors":
            save_file({name: value.contiguous() for name, value in network.state_dict().items()}, path)
        else:
            torch.save(network.state_dict(), path)
        return network, path

    return save


@pytest.mark.parametrize("architecture", TOWERS)
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_features_are_the_image_embeddings_of_the_weights_in_the_file(saved, architecture, suffix):
    network, path = saved(architecture, suffix)
    extractor = build_features(FeaturesConfig(name=f"open_clip:{architecture}", path=str(path)))
    images = signal(drawn(48)).expand(3, -1, -1, -1)
    visual = network.visual
    side = visual.image_size if isinstance(visual.image_size, int) else visual.image_size[0]
    with torch.no_grad():
        expected = network.encode_image(preprocess(images, side, visual.image_mean, visual.image_std))
    torch.testing.assert_close(extractor(images), expected)
    assert extractor.dim == expected.shape[1] == 16
    assert extractor.record["features"] == f"open_clip:{architecture}"


def test_no_warning_about_random_weights_that_are_replaced_at_once(saved, caplog):
    _, path = saved("tiny-vit")
    caplog.clear()
    build_features(FeaturesConfig(name="open_clip:tiny-vit", path=str(path)))
    assert caplog.text == ""


def test_weights_are_found_by_name_in_the_folder_that_a_variable_names(saved, monkeypatch):
    _, path = saved("tiny-vit")
    monkeypatch.setenv("LEDIFLOW_WEIGHTS", str(path.parent))
    assert build_features(FeaturesConfig(name="open_clip:tiny-vit")).dim == 16


def test_the_archive_published_by_openai_is_read_without_its_integers(saved, tmp_path):
    network, _ = saved("tiny-vit")
    network.register_buffer("input_resolution", torch.tensor(32))
    shell = torch.nn.Module()  # only the state is read, so the archive's code may be empty
    for name, value in network.state_dict().items():
        *parents, leaf = name.split(".")
        place = shell
        for parent in parents:
            if not hasattr(place, parent):
                place.add_module(parent, torch.nn.Module())
            place = getattr(place, parent)
        place.register_buffer(leaf, value)
    torch.jit.script(shell).save(tmp_path / "archive.pt")
    found = ClipFeatures(str(tmp_path / "archive.pt"), architecture="tiny-vit").network.state_dict()
    assert all(
        torch.equal(found[name], value) for name, value in network.state_dict().items() if name in found
    )


def test_weights_of_another_architecture_are_refused(saved):
    _, path = saved("tiny-resnet")
    with pytest.raises(UserError, match=r"does not hold the weights of tiny-vit.*features\.name=open_clip"):
        build_features(FeaturesConfig(name="open_clip:tiny-vit", path=str(path)))


def test_a_file_that_lacks_a_tensor_is_refused_rather_than_filled_with_random_ones(saved):
    network, path = saved("tiny-vit")
    state = network.state_dict()
    del state["visual.proj"]
    torch.save(state, path)
    with pytest.raises(UserError, match=r"does not hold the weights of tiny-vit.*Missing key.*visual\.proj"):
        build_features(FeaturesConfig(name="open_clip:tiny-vit", path=str(path)))


def test_an_unknown_architecture_is_refused_with_those_near_it(saved):
    _, path = saved("tiny-vit")
    with pytest.raises(UserError, match=r"'tiny-clip'; near it: .*tiny-vit"):
        build_features(FeaturesConfig(name="open_clip:tiny-clip", path=str(path)))


@pytest.mark.parametrize("path", [None, "nowhere.pt"])
def test_without_weights_the_message_says_where_to_get_and_put_them(path, monkeypatch):
    monkeypatch.delenv("LEDIFLOW_WEIGHTS", raising=False)
    with pytest.raises(UserError, match=r"ViT-L-14-336px\.pt.*features\.path=FILE.*\$LEDIFLOW_WEIGHTS"):
        build_features(FeaturesConfig(name="clip-vit-l14-336", path=path))
