"""Activation checkpointing: discard a layer's activations and recompute them in the backward pass.

A level then stores only the input of each of its transformer layers. Outputs and gradients are unchanged, bit for bit.
A training step costs one more forward pass of the layers, and the backward pass holds the activations of one layer at
a time.
Source: Chen et al., arXiv:1604.06174.
"""

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def recompute_activations(module: nn.Module, recompute: bool = True) -> nn.Module:
    """Make every level inside `module` recompute its layers in the backward pass; recompute=False turns this off."""
    levels = [part for part in module.modules() if isinstance(part, RecomputesLayers)]
    if not levels:
        raise ValueError(
            f"activation checkpointing: {type(module).__name__} has no levels of transformer layers to "
            f"recompute; leave activation_checkpointing off for it"
        )
    for level in levels:
        level.is_recomputed = recompute
    return module


class RecomputesLayers(nn.Module):
    """Base class of modules that call their layers through `run`."""

    is_recomputed = False

    def run(self, layer: nn.Module, *inputs: object) -> Tensor:
        """The layer's output; activations are stored or recomputed, as set by `recompute_activations`."""
        if not self.is_recomputed:
            return layer(*inputs)
        # dropout masks are computed from sample keys in the inputs: no generator state to restore
        return checkpoint(layer, *inputs, use_reentrant=False, preserve_rng_state=False)
