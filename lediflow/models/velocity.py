"""The flow model: the velocity v_t(x, z) that carries a draw from the prior to an image.

The latent z is an input in one of three ways:

    vector   flattened into the hourglass's conditioning vector, which all layers use
    concat   resized to the image and appended to its channels
    tokens   resized to the coarsest token grid, projected, and added to the tokens there

Without a latent the same network is the flow-matching baseline. Class labels run from 0 to num_classes - 1;
num_classes means "no class", which classifier-free guidance uses.
Source: arXiv:2505.20723, eqs. 1 and 6; guidance: Ho & Salimans, arXiv:2207.12598.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from lediflow.models.checks import check_classes, check_latent
from lediflow.models.specs import VelocitySpec, velocity_hourglass
from lediflow.nn.hourglass import Hourglass
from lediflow.nn.shapes import Image, SampleKeys, Tokens
from lediflow.nn.specs import check_channels, check_grid

KEY = "model.velocity"  # the key of this model in the configuration


def resized(z: Image, height: int, width: int) -> Image:
    """z on another grid: pixels are repeated to enlarge it and averaged to reduce it."""
    return F.interpolate(z, size=(height, width), mode="area")


class VelocityModel(nn.Module):
    """The flow model; forward gives the velocity at (x, t), with the shape of x."""

    def __init__(self, spec: VelocitySpec, attention_route: str = "auto") -> None:
        super().__init__()
        self.spec = spec
        self.hourglass = Hourglass(velocity_hourglass(spec), attention_route)
        channels = spec.latent_channels_by("tokens")
        self.latent_in = nn.Linear(channels, spec.levels[-1].width, bias=False) if channels else None
        if self.latent_in is not None:
            nn.init.zeros_(self.latent_in.weight)  # initially no effect, like all maps that add to the tokens

    def forward(
        self,
        x: Image,
        t: Float[Tensor, ""] | Float[Tensor, " batch"] | float,
        z: Float[Tensor, "batch latent_channels latent_height latent_width"] | None = None,
        labels: Int[Tensor, " batch"] | None = None,
        dropout: SampleKeys | None = None,
        augmentation: Float[Tensor, "batch 9"] | None = None,
    ) -> Image:
        """The velocity at x and t, given the latent z.

        `labels` None means "no class" for a class-conditional model; `augmentation` None means not augmented;
        `dropout` is one key per sample, needed for training with dropout.
        """
        self.check_inputs(x, z, labels)
        if self.spec.num_classes and labels is None:
            labels = torch.full((len(x),), self.spec.num_classes, device=x.device)
        return self.hourglass(
            self.with_latent_channels(x, z),
            t,
            labels=labels,
            conditioning=z.flatten(1) if z is not None and self.spec.conditioning == "vector" else None,
            augmentation=augmentation,
            middle=self.latent_tokens(x, z),
            dropout=dropout,
        )

    def check_inputs(self, x: Image, z: Tensor | None, labels: Tensor | None) -> None:
        """ValueError for inputs that do not fit the model; does not wait for a GPU."""
        check_channels(x.shape[1], self.spec.image_channels, f"{KEY}.image_channels")
        check_grid(self.spec.levels, self.spec.patch_size, x.shape[-2], x.shape[-1], key=KEY)
        check_latent(z, self.spec.latent_shape, batch=len(x))
        check_classes(labels, self.spec.num_classes, batch=len(x))

    def with_latent_channels(self, x: Image, z: Image | None) -> Image:
        """x, with the channels of z appended if conditioning is "concat"."""
        if z is None or self.spec.conditioning != "concat":
            return x
        return torch.cat((x, resized(z, *x.shape[-2:]).to(x.dtype)), dim=1)

    def latent_tokens(self, x: Image, z: Image | None) -> Tokens | None:
        """The addition to the coarsest tokens if conditioning is "tokens", else None."""
        if z is None or self.latent_in is None:
            return None
        side = self.spec.patch_size * 2 ** (len(self.spec.levels) - 1)  # pixels per coarsest token
        # resizing first is cheaper than projecting and gives the same result
        on_grid = resized(z, x.shape[-2] // side, x.shape[-1] // side)
        return self.latent_in(rearrange(on_grid, "b c h w -> b h w c"))
