"""The flow model: the velocity v_t(x, z) that carries a draw from the prior to an image.

The latent z is flattened into the hourglass's conditioning vector. Without one (latent_dim 0) the same
network is the flow-matching baseline. Source: arXiv:2505.20723, eqs. 1 and 6.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lediflow.models.specs import VelocitySpec, velocity_hourglass
from lediflow.nn.hourglass import Hourglass
from lediflow.nn.shapes import Image


def time_per_sample(
    t: Float[Tensor, ""] | Float[Tensor, " batch"] | float, x: Float[Tensor, "batch *dims"]
) -> Float[Tensor, " batch"]:
    """One time for each sample of x, from one time for all or one each."""
    return torch.as_tensor(t, dtype=torch.promote_types(x.dtype, torch.float32), device=x.device).expand(
        len(x)
    )


class VelocityModel(nn.Module):
    def __init__(self, spec: VelocitySpec, attention_route: str = "auto") -> None:
        super().__init__()
        self.spec = spec
        self.hourglass = Hourglass(velocity_hourglass(spec), attention_route)

    def forward(
        self,
        x: Image,
        t: Float[Tensor, ""] | Float[Tensor, " batch"] | float,
        z: Float[Tensor, "batch *latent"] | None = None,
        labels: Int[Tensor, " batch"] | None = None,
    ) -> Image:
        conditioning = None if z is None else z.flatten(start_dim=1)
        return self.hourglass(x, time_per_sample(t, x), labels=labels, conditioning=conditioning)
