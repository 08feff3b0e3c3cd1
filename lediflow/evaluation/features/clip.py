"""Features of CLIP ViT-L/14@336, the ones CMMD is defined on. The only home of open_clip.

Preprocessing as in CMMD's reference: 336 x 336, bicubic, CLIP's own mean and standard deviation. OpenAI's
weights want the quick GELU; loaded from a file, open_clip applies it only under the "-quickgelu" name.
Source: Jayasumana et al. 2023, arXiv:2401.09603; Radford et al. 2021, arXiv:2103.00020.
"""

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lediflow.compat import mend_torchvision
from lediflow.errors import UserError
from lediflow.evaluation.features.pixels import resize, rgb_pixels, standardise

NAME = "clip-vit-l14-336"
ARCHITECTURE = "ViT-L-14-336-quickgelu"
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


class ClipFeatures:
    """Image embeddings of a CLIP model whose weights lie in a local file."""

    def __init__(
        self,
        path: str | None,
        *,
        name: str = NAME,
        architecture: str = ARCHITECTURE,
        device: torch.device | str = "cpu",
    ):
        self.name = name
        self.device = torch.device(device)
        self.record = {"features": name, "weights": path}
        self.network = load_network(architecture, path).to(self.device).eval()
        self.size: int = self.network.visual.image_size[0]
        self.dim: int = self.network.visual.output_dim

    @torch.no_grad()
    def __call__(self, images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch dim"]:
        pixels = resize(rgb_pixels(images.to(self.device)), self.size)
        return self.network.encode_image(standardise(pixels / 255, MEAN, STD)).float()


def load_network(architecture: str, path: str | None) -> Any:
    """The CLIP model, or a word on which file is missing. Nothing is downloaded."""
    if path is None or not Path(path).is_file():
        found = "no path was given" if path is None else f"{path} is not a file"
        raise UserError(
            f"CLIP features need weights of {architecture}, but {found}; download them once on a machine "
            "with a network (open_clip, pretrained='openai') and pass features.path=FILE.pt"
        )
    mend_torchvision()
    import open_clip

    return open_clip.create_model(architecture, pretrained=path)
