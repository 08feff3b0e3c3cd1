"""Linear layers in 16 and 8 bits, for copies of models that are run and not trained.

In 16 bits, inputs and weights are rounded to bfloat16, as autocast does it at each call. Code that is compiled ahead of
time cannot enter autocast.

In 8 bits a layer computes

    y = s (round(x) round(W / s)'),    s = max |W| / 448

with both factors rounded to E4M3, whose largest number is 448; sums are float32, and the result is bfloat16. Inputs are
not scaled: they follow a norm, a gate or attention, so that they are of the order of one, and floating point numbers
lose no digits between 1/64 and 448. What is larger becomes 448. The gate of a feed-forward block writes 8-bit numbers
itself; elsewhere the compiler joins the rounding with the operation before it.

Source: Micikevicius et al., "FP8 formats for deep learning", arXiv:2209.05433.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lediflow.nn.feedforward import FeedForward, geglu_in_float8

FLOAT8 = torch.float8_e4m3fn
LARGEST = torch.finfo(FLOAT8).max
# projections of tokens; embeddings, conditioning and the first and last layer stay as they are
LAYERS = ("qkv_proj", "out_proj", "up_proj", "down_proj")
MULTIPLE = 16  # of both widths, for the hardware
SMALLEST_WIDTH = 256  # below, rounding takes longer than the product saves
CAPABILITY = (8, 9)  # Ada and Hopper are the first GPUs with these products


class Bfloat16Linear(nn.Linear):
    """A linear layer whose weights, inputs and outputs are bfloat16."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__(layer.in_features, layer.out_features, bias=layer.bias is not None, device="meta")
        layer.to(torch.bfloat16)
        self.weight, self.bias = layer.weight, layer.bias

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x.to(torch.bfloat16), self.weight, self.bias)


class Float8Linear(nn.Module):
    """A linear layer without bias, with its weight in 8 bits and one scale."""

    weight: Tensor
    scale: Tensor
    one: Tensor  # the scale of inputs

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", torch.empty_like(weight, dtype=FLOAT8))
        self.register_buffer("scale", weight.new_empty((), dtype=torch.float32))
        self.register_buffer("one", weight.new_ones((), dtype=torch.float32))
        self.copy_(weight)

    @torch.no_grad()
    def copy_(self, weight: Tensor) -> None:
        """Take other weights, in place, as `Tensor.copy_` does."""
        weight = weight.to(self.scale.device, torch.float32)
        scale = weight.abs().amax().clamp(min=torch.finfo(torch.float32).tiny) / LARGEST
        self.scale.copy_(scale)
        self.weight.copy_(rounded(weight / scale))

    def forward(self, x: Tensor) -> Tensor:
        product = torch._scaled_mm(
            rounded(x.flatten(0, -2)),
            self.weight.t(),
            scale_a=self.one,
            scale_b=self.scale,
            out_dtype=torch.bfloat16,
            use_fast_accum=True,
        )
        return product.unflatten(0, x.shape[:-1])


def rounded(x: Tensor) -> Tensor:
    """x in 8 bits; numbers beyond the largest become the largest, of which some devices would make NaN."""
    return x if x.dtype == FLOAT8 else x.clamp(-LARGEST, LARGEST).to(FLOAT8)


def is_large(module: nn.Module, name: str) -> bool:
    """Whether the products of the layer of this name are to be computed in 8 bits."""
    *places, last = name.split(".")
    if not isinstance(module, nn.Linear) or last not in LAYERS or "mapping" in places:
        return False
    widths = module.in_features, module.out_features
    return min(widths) >= SMALLEST_WIDTH and not any(width % MULTIPLE for width in widths)


def multiplies_in_float8(device: torch.device) -> bool:
    """Whether the device can; CPUs can, without hardware for it."""
    return device.type != "cuda" or torch.cuda.get_device_capability(device) >= CAPABILITY


def to_bfloat16(module: nn.Module) -> None:
    """Let the linear layers of a module compute in bfloat16, in place; parameters keep their names."""
    for name, layer in list(module.named_modules()):
        if isinstance(layer, nn.Linear):
            module.set_submodule(name, Bfloat16Linear(layer))


def to_float8(module: nn.Module) -> dict[str, Float8Linear]:
    """Replace the large layers of a module, in place; the new ones, by the names of the weights that they replaced."""
    replaced = {}
    for name, layer in list(module.named_modules()):
        if is_large(layer, name):
            replaced[f"{name}.weight"] = Float8Linear(layer.weight)
            module.set_submodule(name, replaced[f"{name}.weight"])
    for part in module.modules():
        if isinstance(part, FeedForward) and isinstance(part.down_proj, Float8Linear):
            part.gate = geglu_in_float8
    return replaced
