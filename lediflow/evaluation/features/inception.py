"""Features of Inception-v3, which FID and KID are defined on. The only module that imports torch-fidelity.

The network and its resizing to 299 x 299 are torch-fidelity's, which agree with the original in TensorFlow. Its weights
are converted from there and are given as a file.
Source: Heusel et al. 2017, arXiv:1706.08500; Obukhov et al. 2020, torch-fidelity.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lediflow.compat import fix_torchvision
from lediflow.errors import UserError
from lediflow.evaluation.features.inputs import (
    check_square,
    find_weights,
    read_state,
    rgb_pixels,
    weights_record,
)

NAME = "inception"
LAYER = "2048"  # the pooled features
FILE = "weights-inception-2015-12-05-6726825d.pth"
HOME = f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{FILE}"


class InceptionFeatures:
    """The 2,048 pooled features."""

    name, dim = NAME, 2048

    def __init__(self, path: str | None, *, device: torch.device | str = "cpu"):
        weights = find_weights(path, FILE, "Inception's features need its weights", HOME)
        self.device = torch.device(device)
        self.network = load_network(str(weights)).to(self.device).eval()
        self.record = weights_record(NAME, weights, "torch-fidelity's bilinear 299", self.dim)

    @torch.no_grad()
    def __call__(self, images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch dim"]:
        check_square(images)
        (features,) = self.network(rgb_pixels(images.to(self.device)).to(torch.uint8))
        return features.float()


def load_network(path: str) -> Any:
    fix_torchvision()
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except ImportError as error:
        raise UserError(
            "Inception's features need the package torch-fidelity, which is not installed; `pip install torch-fidelity`"
        ) from error
    try:
        read_state(Path(path))  # torch-fidelity would execute code in a pickle
        return FeatureExtractorInceptionV3(NAME, [LAYER], feature_extractor_weights_path=path)
    except (RuntimeError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path} does not hold the weights of Inception ({str(error).splitlines()[0]}); give {FILE}, from {HOME}"
        ) from error
