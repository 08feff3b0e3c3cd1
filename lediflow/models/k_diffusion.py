"""Reads the specification of a k-diffusion checkpoint from its metadata.

Two forms are supported, both also as JSON text, as in safetensors metadata:

    levels, mapping, patch_size, ...            this package's keys, as `metadata_from_spec` writes them
    {"model": {"type": "image_transformer_v2",  k-diffusion's configuration file, alone or under "config",
               "widths": [...], ...}, ...}      where its `convert_for_inference.py` puts it

Missing keys are inferred from the weights, except the levels: kernel sizes are not visible in the weights.
Source: k-diffusion's `config.py`, whose defaults these are.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from torch import Tensor

from lediflow.nn.specs import HourglassSpec, LevelSpec, MappingSpec
from lediflow.records import parse_json, read_dataclass, typed

Values = dict[str, Any]
ATTENTION = ("global", "neighborhood")
DEFAULT_HEAD_DIM, DEFAULT_KERNEL_SIZE = 64, 7
OWN_KEYS = ("levels", "mapping", "patch_size", "num_classes", "conditioning_dim")
KEYS = {*OWN_KEYS, "channels", "in_channels", "out_channels", "config", "model", "dataset"}
ADVICE = """give k-diffusion's configuration as {"config": ...}, or "levels" and "mapping\""""
REQUIRED = ("input_channels", "patch_size", "depths", "widths")


def spec_of_checkpoint(state_dict: Mapping[str, Tensor], metadata: Mapping[str, Any] | None) -> HourglassSpec:
    """The specification in the metadata; missing values are inferred from the weights."""
    metadata = metadata or {}  # safetensors gives None for a file without metadata
    values = own_words(unpacked(metadata))
    if not values.keys() >= {"levels", "mapping"}:
        raise ValueError(
            f"metadata with {sorted(metadata)}: levels and mapping network are missing; {ADVICE}"
        )
    values = inferred(state_dict, values) | values
    return HourglassSpec(
        in_channels=values["in_channels"],
        out_channels=values["out_channels"],
        patch_size=square(values["patch_size"]),
        levels=typed(list[LevelSpec], values["levels"], "metadata, levels"),
        mapping=read_dataclass(MappingSpec, values["mapping"], "metadata, mapping"),
        num_classes=values["num_classes"],
        conditioning_dim=values["conditioning_dim"],
        augmentation="aug_in_proj.weight" in state_dict,
    )


def metadata_from_spec(spec: HourglassSpec) -> dict[str, str]:
    """The specification as metadata of a safetensors file, one JSON text per key; dropout of 0 is omitted."""
    values = asdict(spec)
    for part in (*values["levels"], values["mapping"]):
        if not part["dropout"]:
            del part["dropout"]
    channels = {"channels": spec.in_channels}
    if spec.out_channels != spec.in_channels:
        channels["out_channels"] = spec.out_channels
    return {
        key: json.dumps(value) for key, value in (channels | {key: values[key] for key in OWN_KEYS}).items()
    }


def unpacked(metadata: Mapping[str, Any]) -> Values:
    """The known keys of the metadata, with JSON text parsed; other keys are ignored."""
    read = {key: value for key, value in metadata.items() if key in KEYS}
    return {
        key: parse_json(value, f"metadata, {key}", ADVICE) if isinstance(value, str) else value
        for key, value in read.items()
    }


def own_words(values: Values) -> Values:
    """Convert either form to this package's keys; missing keys stay missing."""
    values = by_name(values.get("config", values), "config")
    if "model" in values:
        return from_configuration(
            by_name(values["model"], "model"), by_name(values.get("dataset", {}), "dataset")
        )
    own = {key: values[key] for key in (*OWN_KEYS, "in_channels", "out_channels") if key in values}
    both = {key: values["channels"] for key in ("in_channels", "out_channels") if "channels" in values}
    return both | own


def by_name(values: Any, key: str) -> Values:
    """The values, which must be a dict; otherwise ValueError with the key."""
    if not isinstance(values, dict):
        raise ValueError(f"metadata, {key}: found {values!r}; {ADVICE}")
    return values


def from_configuration(model: Values, dataset: Values) -> Values:
    """Convert k-diffusion's configuration to this package's keys."""
    if model.get("type") != "image_transformer_v2":
        raise ValueError(
            f"a k-diffusion model of type {model.get('type')!r}: only 'image_transformer_v2' can be converted"
        )
    if missing := [key for key in REQUIRED if key not in model]:
        raise ValueError(
            f"k-diffusion's configuration: no {', '.join(missing)} under model; give the whole file"
        )
    width = model.get("mapping_width", 256)
    values = {
        "in_channels": model["input_channels"],
        "out_channels": model["input_channels"],
        "patch_size": model["patch_size"],
        "levels": levels_from_configuration(model),
        "mapping": {
            "depth": model.get("mapping_depth", 2),
            "width": width,
            "d_ff": model.get("mapping_d_ff") or 3 * width,
            "dropout": model.get("mapping_dropout_rate", 0.0),
        },
        "conditioning_dim": model.get("mapping_cond_dim", 0),
    }
    # k-diffusion adds a row for "no class"; without the key, the number is inferred from the weights
    if "num_classes" in dataset:
        values["num_classes"] = dataset["num_classes"] + 1 if dataset["num_classes"] else 0
    return values


def levels_from_configuration(model: Values) -> list[Values]:
    """The levels of k-diffusion's configuration: depth, width, feed-forward width, attention and dropout of each."""
    widths, depths = model["widths"], model["depths"]
    d_ffs = model.get("d_ffs") or [3 * width for width in widths]
    default = [{"type": "neighborhood"}] * (len(widths) - 1) + [{"type": "global"}]
    attention = model.get("self_attns") or default
    if not len(widths) == len(depths) == len(d_ffs) == len(attention):
        raise ValueError(
            f"{len(widths)} widths, {len(depths)} depths, {len(d_ffs)} d_ffs and {len(attention)} self_attns: give one "
            f"of each per level"
        )
    dropout = dropout_rates(model, len(widths))
    parts = zip(depths, widths, d_ffs, attention, dropout, strict=True)
    return [
        {"depth": depth, "width": width, "d_ff": d_ff, **attention_in_own_words(index, kind), "dropout": rate}
        for index, (depth, width, d_ff, kind, rate) in enumerate(parts)
    ]


def dropout_rates(model: Values, levels: int) -> list[float]:
    """One dropout rate per level from `dropout_rate`; ValueError for a list of another length."""
    rates = model.get("dropout_rate")
    if rates is None:
        return [0.0] * levels
    if not isinstance(rates, list | tuple):
        return [rates] * levels
    if len(rates) != levels:
        raise ValueError(
            f"dropout_rate of {len(rates)} numbers for {levels} widths: give one per level, or one number for all"
        )
    return list(rates)


def attention_in_own_words(index: int, attention: Values) -> Values:
    """head_dim and kernel_size of one entry of `self_attns`."""
    if attention.get("type") not in ATTENTION:
        raise ValueError(
            f"self_attns[{index}] of type {attention.get('type')!r}: this hourglass has {' and '.join(ATTENTION)} "
            f"attention only, so such a checkpoint cannot be converted"
        )
    is_local = attention["type"] == "neighborhood"
    kernel_size = attention.get("kernel_size", DEFAULT_KERNEL_SIZE) if is_local else None
    return {"head_dim": attention.get("d_head", DEFAULT_HEAD_DIM), "kernel_size": kernel_size}


def inferred(state_dict: Mapping[str, Tensor], values: Values) -> Values:
    """Infer everything except levels and mapping from the shapes of the weights."""
    into, out_of = (
        shape_of(state_dict, "patch_in.proj.weight")[1],
        shape_of(state_dict, "patch_out.proj.weight")[0],
    )
    if "patch_size" in values:
        side = square(values["patch_size"])
    elif "in_channels" in values:
        side = math.isqrt(into // values["in_channels"])
    else:
        raise ValueError(
            "metadata without patch_size and channels: the weights determine only their product; give one"
        )
    return {
        "patch_size": side,
        "in_channels": into // side**2,
        "out_channels": out_of // side**2,
        "num_classes": rows(state_dict, "class_emb.weight", axis=0),
        "conditioning_dim": rows(state_dict, "mapping_cond_in_proj.weight", axis=1),
    }


def rows(state_dict: Mapping[str, Tensor], name: str, axis: int) -> int:
    """Length of a weight along an axis; 0 if the weight does not exist."""
    return state_dict[name].shape[axis] if name in state_dict else 0


def shape_of(state_dict: Mapping[str, Tensor], name: str) -> tuple[int, ...]:
    if name not in state_dict:
        raise ValueError(
            f"missing: {name}, among {len(state_dict)} weights ({', '.join(sorted(state_dict)[:3])}, ...); give the "
            f"state dict of an image_transformer_v2 under the reference's names, without a prefix"
        )
    return tuple(state_dict[name].shape)


def square(patch_size: int | list[int]) -> int:
    """The side of a square patch, given as 4 or [4, 4]; ValueError for other patches."""
    sides = [patch_size] if isinstance(patch_size, int) else patch_size
    if len(set(sides)) != 1:
        raise ValueError(f"patch_size {patch_size}: only square patches can be converted")
    return sides[0]
