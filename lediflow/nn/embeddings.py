"""Embeds time, class, augmentation and a free vector into the one condition vector that all layers use.

Each input is embedded to the same width, the embeddings are added, and a small residual network maps the sum.
Fourier features are cos and sin of 2 pi W x with W drawn once from N(0, 1).
Sources: Tancik et al., arXiv:2006.10739; mapping network: HDiT, arXiv:2401.11605.
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lediflow.nn.feedforward import FeedForward
from lediflow.nn.norms import RMSNorm, at_least_float32
from lediflow.nn.shapes import Condition, SampleKeys, Tokens, check_labels, check_vector
from lediflow.nn.specs import HourglassSpec, MappingSpec

AUGMENTATION_DIM = 9  # k-diffusion's augmentation parameters


class FourierFeatures(nn.Module):
    """cos and sin of random projections of x; phases are large, so they are computed in at least float32."""

    weight: Tensor

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.randn(out_dim // 2, in_dim))

    def forward(self, x: Float[Tensor, "batch in_dim"]) -> Float[Tensor, "batch out_dim"]:
        # product and sum instead of matmul, because autocast would round a matmul's phases to bfloat16
        phase = 2 * math.pi * (at_least_float32(x)[:, None, :] * self.weight).sum(dim=-1)
        return torch.cat((phase.cos(), phase.sin()), dim=-1).to(self.weight.dtype)


class EmbeddedFeatures(nn.Sequential):
    """Fourier features followed by a linear map."""

    def __init__(self, in_dim: int, width: int) -> None:
        super().__init__(FourierFeatures(in_dim, width), nn.Linear(width, width, bias=False))


class AugmentationEmbedding(EmbeddedFeatures):
    """Embeds the nine augmentation parameters as a vector added to every token; zero at initialisation."""

    def __init__(self, width: int) -> None:
        super().__init__(AUGMENTATION_DIM, width)
        nn.init.zeros_(self.get_parameter("1.weight"))

    def added_to(self, x: Tokens, augmentation: Float[Tensor, "batch 9"] | None) -> Tokens:
        """x with the embedded augmentation added to every token; None and zeros both mean "not augmented"."""
        if augmentation is None:
            augmentation = torch.zeros(len(x), AUGMENTATION_DIM, device=x.device)
        check_vector("augmentation", augmentation, len(x), AUGMENTATION_DIM)
        return x + self(augmentation)[:, None, None, :]


class MappingNetwork(nn.Module):
    """Residual feed-forward blocks with a norm before and after them."""

    def __init__(self, spec: MappingSpec) -> None:
        super().__init__()
        self.in_norm = RMSNorm(spec.width)
        self.blocks = nn.ModuleList(
            FeedForward(spec.width, spec.feedforward_width, dropout=spec.dropout) for _ in range(spec.depth)
        )
        self.out_norm = RMSNorm(spec.width)

    def forward(self, x: Condition, keys: SampleKeys | None = None) -> Condition:
        x = self.in_norm(x)
        for block in self.blocks:
            x = block(x, keys=keys)
        return self.out_norm(x)


class ConditionEmbedding(nn.Module):
    """The mapping network applied to the sum of the embedded inputs; unused inputs have no weights."""

    def __init__(self, spec: HourglassSpec) -> None:
        super().__init__()
        width = spec.mapping.width
        self.time = EmbeddedFeatures(1, width)
        self.augmentation = EmbeddedFeatures(AUGMENTATION_DIM, width) if spec.augmentation else None
        self.label = nn.Embedding(spec.num_classes, width) if spec.num_classes else None
        self.vector = nn.Linear(spec.conditioning_dim, width, bias=False) if spec.conditioning_dim else None
        self.mapping = MappingNetwork(spec.mapping)

    def forward(
        self,
        t: Float[Tensor, " batch"],
        labels: Int[Tensor, " batch"] | None = None,
        conditioning: Float[Tensor, "batch conditioning_dim"] | None = None,
        augmentation: Float[Tensor, "batch 9"] | None = None,
        keys: SampleKeys | None = None,
    ) -> Condition:
        if self.augmentation is not None and augmentation is None:
            augmentation = t.new_zeros(len(t), AUGMENTATION_DIM)  # zeros mean "not augmented"
        self.check_inputs(len(t), labels, conditioning, augmentation)
        embedded = self.time(t[:, None])
        embedded = embedded + embedded_or_zero("labels", self.label, labels)
        embedded = embedded + embedded_or_zero("conditioning", self.vector, conditioning)
        embedded = embedded + embedded_or_zero("augmentation", self.augmentation, augmentation)
        return self.mapping(embedded, keys)

    def check_inputs(
        self, batch: int, labels: Tensor | None, conditioning: Tensor | None, augmentation: Tensor | None
    ) -> None:
        """ValueError for inputs of a wrong shape; `embedded_or_zero` rejects missing and unexpected inputs."""
        if self.label is not None and labels is not None:
            rows = self.label.num_embeddings
            check_labels(labels, rows, batch, known=f"the classes 0 to {rows - 1} (num_classes={rows})")
        if self.vector is not None and conditioning is not None:
            check_vector("conditioning", conditioning, batch, self.vector.in_features)
        if self.augmentation is not None and augmentation is not None:
            check_vector("augmentation", augmentation, batch, AUGMENTATION_DIM)


def embedded_or_zero(name: str, embed: nn.Module | None, value: Tensor | None) -> Tensor | float:
    """The embedding of an optional input, 0 without one; ValueError if it is missing or unexpected."""
    if (embed is None) != (value is None):
        found, wanted = ("none given", "needs") if value is None else ("given", "was built without")
        raise ValueError(
            f"{name}: {found}, but this model {wanted} them; match the call to the model's specification"
        )
    return 0.0 if embed is None else embed(value)
