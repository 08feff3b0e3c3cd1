"""The latent sampler: a flow from w ~ N(0, I) to the latents that the encoder produces.

Trained with plain flow matching (eq. 2 of arXiv:2505.20723). Integrated backwards, it maps a latent to its w, which
editing uses.
"""

from jaxtyping import Float
from torch import Tensor, nn

from lediflow.models.auxiliary import Latent
from lediflow.models.specs import LatentSamplerSpec, sampler_hourglass
from lediflow.nn.hourglass import Hourglass
from lediflow.nn.shapes import SampleKeys
from lediflow.nn.specs import check_channels, check_grid

KEY = "model.latent_sampler"  # the key of this model in the configuration


class LatentSampler(nn.Module):
    """Velocity model of the latent sampler; an hourglass over latents."""

    def __init__(self, spec: LatentSamplerSpec, attention_route: str = "auto") -> None:
        super().__init__()
        self.spec = spec
        self.hourglass = Hourglass(sampler_hourglass(spec), attention_route)

    def forward(
        self,
        w: Latent,
        t: Float[Tensor, ""] | Float[Tensor, " batch"] | float,
        dropout: SampleKeys | None = None,
        augmentation: Float[Tensor, "batch 9"] | None = None,
    ) -> Latent:
        """The velocity at w and t; `dropout` is one key per sample, needed for training with dropout.

        `augmentation` is that of the latents' images; None means not augmented.
        """
        check_channels(w.shape[1], self.spec.latent_channels, f"{KEY}.latent_channels")
        check_grid(self.spec.levels, 1, w.shape[-2], w.shape[-1], key=KEY, subject="latent")
        return self.hourglass(w, t, augmentation=augmentation, dropout=dropout)
