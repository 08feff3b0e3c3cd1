"""Hourglass weights to and from k-diffusion's `image_transformer_v2`, under its own names.

The two networks differ only in the names of weights. The reference also stores its rotary frequencies, which are
determined by the number and size of the heads; a checkpoint with other frequencies is rejected.
`lediflow.models.k_diffusion` reads the metadata.
"""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lediflow.models.k_diffusion import metadata_from_spec, spec_of_checkpoint
from lediflow.nn.hourglass import Hourglass
from lediflow.nn.rope import frequencies

PREFIXES = {  # theirs -> ours
    "time_emb.": "condition.time.0.",
    "time_in_proj.": "condition.time.1.",
    "aug_emb.": "condition.augmentation.0.",
    "aug_in_proj.": "condition.augmentation.1.",
    "class_emb.": "condition.label.",
    "mapping_cond_in_proj.": "condition.vector.",
    "mapping.": "condition.mapping.",
}
LEVEL = r"(mid_level|(?:down|up)_levels\.\d+)\."
FREQUENCIES = ".self_attn.pos_emb.freqs"


def from_k_diffusion(
    state_dict: Mapping[str, Tensor], metadata: Mapping[str, Any] | None, attention_route: str = "auto"
) -> Hourglass:
    """Build an hourglass from a reference state dict, with the dtypes and on the device of its weights.

    The module is in evaluation mode, like the result of `load_model`; dropout is active only in training mode.

    `metadata` describes the levels and the mapping network, with this package's keys ("levels", "mapping") or as
    k-diffusion's configuration ("config" or "model"), either also as JSON text. Numbers of channels, classes and
    conditioning entries may be omitted; they are inferred from the weights.
    """
    spec = spec_of_checkpoint(state_dict, metadata)
    with torch.device("meta"):
        module = Hourglass(spec, attention_route)
    refuse_other_weights(module, state_dict)
    refuse_other_frequencies(state_dict)
    own = {
        our_name(name): weight.clone()
        for name, weight in state_dict.items()
        if not name.endswith(FREQUENCIES)
    }
    module.load_state_dict(own, assign=True)
    return module.eval()


def to_k_diffusion(module: Hourglass) -> tuple[dict[str, Tensor], dict[str, str]]:
    """State dict and metadata under the reference's names: the inverse of `from_k_diffusion`."""
    theirs = {their_name(name): weight for name, weight in module.state_dict().items()}
    attention_scales = {name: scale for name, scale in theirs.items() if name.endswith(".self_attn.scale")}
    for name, scale in attention_scales.items():
        prefix = name.removesuffix(".self_attn.scale")
        width = theirs[f"{prefix}.self_attn.out_proj.weight"].shape[0]
        theirs[prefix + FREQUENCIES] = frequencies(len(scale), width // len(scale), scale.device).contiguous()
    return theirs, metadata_from_spec(module.spec)


def our_name(theirs: str) -> str:
    """ "down_levels.0.1.ff.up_proj.weight" -> "down_levels.0.layers.1.ff.up_proj.weight", and so on."""
    for prefix, replacement in PREFIXES.items():
        if theirs.startswith(prefix):
            return replacement + theirs.removeprefix(prefix)
    return re.sub(f"^{LEVEL}", r"\1.layers.", theirs)


def their_name(ours: str) -> str:
    """The inverse of `our_name`."""
    for replacement, prefix in PREFIXES.items():
        if ours.startswith(prefix):
            return replacement + ours.removeprefix(prefix)
    return re.sub(rf"^{LEVEL}layers\.", r"\1.", ours)


def refuse_other_weights(module: Hourglass, state_dict: Mapping[str, Tensor]) -> None:
    """ValueError unless the weights have the names and shapes that the metadata describes."""
    found = {
        name: tuple(weight.shape) for name, weight in state_dict.items() if not name.endswith(FREQUENCIES)
    }
    expected = {their_name(name): tuple(weight.shape) for name, weight in module.state_dict().items()}
    reshaped = {name for name in found.keys() & expected.keys() if found[name] != expected[name]}
    problems = {
        "missing": sorted(expected.keys() - found.keys()),
        "unexpected": sorted(found.keys() - expected.keys()),
        "of another shape": [
            f"{name} {found[name]} instead of {expected[name]}" for name in sorted(reshaped)
        ],
    }
    if faults := "; ".join(f"{problem}: {', '.join(names)}" for problem, names in problems.items() if names):
        raise ValueError(
            f"the weights are not those of the hourglass that the metadata describes; {faults}. Give the metadata "
            f"of this checkpoint"
        )


def refuse_other_frequencies(state_dict: Mapping[str, Tensor]) -> None:
    """ValueError unless the stored rotary frequencies are those that this package computes."""
    for name, stored in state_dict.items():
        if not name.endswith(FREQUENCIES):
            continue
        prefix = name.removesuffix(FREQUENCIES)
        num_heads = len(state_dict[f"{prefix}.self_attn.scale"])
        width = len(state_dict[f"{prefix}.self_attn.out_proj.weight"])
        expected = frequencies(num_heads, width // num_heads, stored.device)
        # tolerance for frequencies stored in bfloat16
        if stored.shape != expected.shape or not torch.allclose(stored.float(), expected, rtol=1e-2):
            raise ValueError(
                f"{name}: rotary frequencies {stored.flatten()[:3].tolist()}... of shape {tuple(stored.shape)} "
                f"instead of {expected.flatten()[:3].tolist()}... of {tuple(expected.shape)}; convert a checkpoint "
                f"that has the reference's own"
            )
