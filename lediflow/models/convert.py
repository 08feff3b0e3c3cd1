"""Hourglass weights to and from k-diffusion's `image_transformer_v2`, under its own names.

The two networks differ in names alone. The reference also stores its rotary frequencies, which follow from
the number and size of the heads; a checkpoint whose frequencies are others is refused.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from lediflow.nn.hourglass import Hourglass
from lediflow.nn.rope import frequencies
from lediflow.nn.specs import HourglassSpec, LevelSpec, MappingSpec

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


def from_k_diffusion(state_dict: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> Hourglass:
    """The hourglass that a reference state dict holds, in the dtype and on the device of its weights.

    `metadata` gives "levels" and "mapping" (lists and dicts, or their JSON), "channels" and "patch_size", and
    may give "num_classes" and "conditioning_dim".
    """
    refuse_other_frequencies(state_dict)
    ours = {our_name(name): weight for name, weight in state_dict.items() if not name.endswith(FREQUENCIES)}
    module = Hourglass(spec_from_metadata(metadata, has_augmentation="aug_in_proj.weight" in state_dict))
    module.to(next(iter(ours.values())))  # before loading, which would round wider weights
    module.load_state_dict(ours)
    return module


def to_k_diffusion(module: Hourglass) -> tuple[dict[str, Tensor], dict[str, str]]:
    """State dict and metadata under the reference's names: the inverse of `from_k_diffusion`."""
    theirs = {their_name(name): weight for name, weight in module.state_dict().items()}
    attention_scales = {name: scale for name, scale in theirs.items() if name.endswith(".self_attn.scale")}
    for name, scale in attention_scales.items():
        prefix = name.removesuffix(".self_attn.scale")
        width = theirs[f"{prefix}.self_attn.out_proj.weight"].shape[0]
        theirs[prefix + FREQUENCIES] = frequencies(len(scale), width // len(scale), scale.device)
    return theirs, metadata_from_spec(module.spec)


def spec_from_metadata(metadata: Mapping[str, Any], has_augmentation: bool) -> HourglassSpec:
    """The specification in a reference checkpoint's metadata, whose values may be JSON text."""
    values = {key: json.loads(value) if isinstance(value, str) else value for key, value in metadata.items()}
    return HourglassSpec(
        in_channels=values["channels"],
        out_channels=values["channels"],
        patch_size=values["patch_size"],
        levels=[LevelSpec(**level) for level in values["levels"]],
        mapping=MappingSpec(**values["mapping"]),
        num_classes=values.get("num_classes", 0),
        conditioning_dim=values.get("conditioning_dim", 0),
        augmentation=has_augmentation,
    )


def metadata_from_spec(spec: HourglassSpec) -> dict[str, str]:
    """The specification as a safetensors file can carry it: JSON text under the reference's keys."""
    values = asdict(spec)
    kept = ("levels", "mapping", "patch_size", "num_classes", "conditioning_dim")
    return {"channels": str(spec.in_channels), **{key: json.dumps(values[key]) for key in kept}}


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


def refuse_other_frequencies(state_dict: Mapping[str, Tensor]) -> None:
    """Check the stored rotary frequencies against the formula that this package computes them by."""
    for name, stored in state_dict.items():
        if not name.endswith(FREQUENCIES):
            continue
        num_heads, pairs_per_axis = stored.shape
        expected = frequencies(num_heads, 8 * pairs_per_axis, stored.device)
        if not torch.allclose(stored.float(), expected, rtol=1e-2):
            raise ValueError(
                f"{name}: rotary frequencies {stored.flatten()[:3].tolist()}... instead of "
                f"{expected.flatten()[:3].tolist()}...; convert a checkpoint that has the reference's own"
            )
