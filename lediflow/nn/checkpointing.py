"""Activation checkpointing: forget what a layer computed, and compute it again when its gradient is due.

A level then keeps the input of each of its transformer layers only. The weights, the numbers and the gradients
stay what they are, bit for bit; a training step pays one more forward pass of the layers, and during the
backward pass one layer's activations are held at a time.
Source: Chen et al., arXiv:1604.06174.
"""

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def recompute_activations(module: nn.Module, recompute: bool = True) -> nn.Module:
    """Have every level inside `module` recompute its layers in the backward pass, or keep them again."""
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
    """Base of modules that run their layers through `run`."""

    is_recomputed = False

    def run(self, layer: nn.Module, *inputs: object) -> Tensor:
        """The layer's output; its activations are kept or not, as `recompute_activations` said."""
        if not self.is_recomputed:
            return layer(*inputs)
        # dropout's masks follow from sample keys among the inputs, so there is no generator's state to put back
        return checkpoint(layer, *inputs, use_reentrant=False, preserve_rng_state=False)
