"""Root-mean-square norms whose scale is a parameter or predicted from the condition.

    y = x * scale / sqrt(mean(x^2) + eps)

Statistics are computed in at least float32, for inputs of any dtype. No mean is subtracted, no bias added.
Source: Zhang & Sennrich, arXiv:1910.07467; conditioned form: HDiT, arXiv:2401.11605.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lediflow.nn.shapes import Condition

EPS = 1e-6


def at_least_float32(x: Tensor) -> Tensor:
    """The same values in float32, or in their own dtype if that is wider."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def rms_norm(
    x: Float[Tensor, "*batch channels"], scale: Float[Tensor, "*#batch channels"]
) -> Float[Tensor, "*batch channels"]:
    """x divided by its root mean square over channels, times `scale`."""
    mean_square = at_least_float32(x).square().mean(dim=-1, keepdim=True)
    return x * (at_least_float32(scale) * torch.rsqrt(mean_square + EPS)).to(x.dtype)


class RMSNorm(nn.Module):
    """RMS norm whose scale is a parameter. It ignores a condition, so that it can replace AdaRMSNorm."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width))

    def forward(
        self, x: Float[Tensor, "*batch channels"], condition: Condition | None = None
    ) -> Float[Tensor, "*batch channels"]:
        return rms_norm(x, self.scale)


class AdaRMSNorm(nn.Module):
    """RMS norm whose scale is 1 + a linear map of the condition, initialised to zero."""

    def __init__(self, width: int, condition_width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(condition_width, width, bias=False)
        nn.init.zeros_(self.linear.weight)

    def forward(
        self, x: Float[Tensor, "batch height width channels"], condition: Condition
    ) -> Float[Tensor, "batch height width channels"]:
        return rms_norm(x, self.linear(condition)[:, None, None, :] + 1)


def norm_for(width: int, condition_width: int | None) -> RMSNorm | AdaRMSNorm:
    """The norm of a transformer block: AdaRMSNorm if there is a condition, else RMSNorm."""
    return RMSNorm(width) if condition_width is None else AdaRMSNorm(width, condition_width)
