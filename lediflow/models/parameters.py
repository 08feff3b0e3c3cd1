"""A model's parameters: counted, printed as a tree of its parts, and grouped for the optimizer.

    from lediflow.models.parameters import describe_model

    print(describe_model(model))

The tree gives token grids as the side of a token, in pixels of the model's input.

In the groups, weight decay applies to the linear maps of tokens and of the mapping network. It does not apply to norms,
attention scales, skip fractions and the embeddings of time, class, conditioning and augmentation. The mapping network
and the linear maps of its output have a third of the learning rate. Source: k-diffusion's `image_transformer_v2`.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate
from operator import mul
from typing import Any, NamedTuple

from torch import nn

from lediflow.models.auxiliary import AuxiliaryModel
from lediflow.nn.embeddings import AUGMENTATION_DIM, AugmentationEmbedding, ConditionEmbedding, MappingNetwork
from lediflow.nn.hourglass import Hourglass
from lediflow.nn.levels import Level, TokenMerge, TokenSplit, TransformerLayer
from lediflow.nn.norms import AdaRMSNorm

MAPPING_LR_SCALE = 1 / 3
Sides = dict[nn.Module, int]  # level -> pixels per side of its tokens


def count_parameters(module: nn.Module) -> int:
    """Number of parameters of a module, without buffers."""
    return sum(parameter.numel() for parameter in module.parameters())


class Line(NamedTuple):
    """One line of the tree."""

    branch: str  # name of the part, indented with the lines of the tree
    about: str
    parameters: int


def describe_model(module: nn.Module) -> str:
    """The tree of a model, one line per part; parameters of a part are the sum over its children."""
    lines = [
        Line(type(module).__name__, "", count_parameters(module)),
        *branches(module, token_sides(module)),
    ]
    widths = [max(len(line.branch) for line in lines), max(len(line.about) for line in lines)]
    digits = len(f"{lines[0].parameters:,}")
    return "\n".join(
        f"{line.branch:{widths[0]}}  {line.about:{widths[1]}}  {line.parameters:{digits},}" for line in lines
    )


def branches(module: nn.Module, sides: Sides, indent: str = "") -> Iterator[Line]:
    """Lines of the parts below a module, down to those that `about` describes in one line."""
    children = [(name, child) for name, child in parts(module) if count_parameters(child)]
    for name, child in children:
        is_last = child is children[-1][1]
        text = about(child, sides)
        yield Line(f"{indent}{'└─' if is_last else '├─'} {name}", text or "", count_parameters(child))
        if text is None:
            yield from branches(child, sides, f"{indent}{'   ' if is_last else '│  '}")


def parts(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """A module's children by name; entries of lists are named name[index]."""
    for name, child in module.named_children():
        if isinstance(child, nn.ModuleList):
            yield from ((f"{name}[{index}]", entry) for index, entry in enumerate(child))
        else:
            yield name, child


def about(module: nn.Module, sides: Sides) -> str | None:
    """A short description of a part; None if its children are to be listed instead."""
    match module:
        case Level():
            return about_level(module, sides[module])
        case ConditionEmbedding():
            return about_condition(module)
        case AugmentationEmbedding():
            return f"{AUGMENTATION_DIM} numbers -> {module[1].out_features}"
        case TokenMerge() | TokenSplit():
            what = "merge" if isinstance(module, TokenMerge) else "split"
            return f"{what} {module.factor}x{module.factor}, {module.proj.in_features} -> {module.proj.out_features}"
        case nn.Linear():
            return f"{module.in_features} -> {module.out_features}"
        case _:
            return None if list(module.children()) else ""


def about_level(level: Level, side: int) -> str:
    first = level.layers[0]
    assert isinstance(first, TransformerLayer)
    kernel, width = first.self_attn.kernel_size, level.num_heads * level.head_dim
    reach = "global" if kernel is None else f"kernel {kernel}"
    return (
        f"tokens of {side}x{side}, width {width}, {level.num_heads} heads x {level.head_dim}, {reach}, "
        f"depth {len(level.layers)}, feed-forward {first.ff.down_proj.in_features}"
    )


def about_condition(condition: ConditionEmbedding) -> str:
    inputs = ["time"]
    if condition.label is not None:
        inputs.append(f"{condition.label.num_embeddings} labels")
    if condition.vector is not None:
        inputs.append(f"vector of {condition.vector.in_features}")
    if condition.augmentation is not None:
        inputs.append("augmentation")
    mapping = condition.mapping
    width = mapping.out_norm.scale.numel()
    return f"{' + '.join(inputs)} -> width {width}, depth {len(mapping.blocks)}"


def token_sides(module: nn.Module) -> Sides:
    """The side of every level's tokens, in pixels of the model's input."""
    sides: Sides = {}
    for part in module.modules():
        if isinstance(part, Hourglass):
            sizes = [part.spec.patch_size * 2**index for index in range(len(part.spec.levels))]
            sides |= dict(zip([*part.down_levels, part.mid_level], sizes, strict=True))
            sides |= dict(zip(part.up_levels, sizes[:-1], strict=True))
        elif isinstance(part, AuxiliaryModel):
            sizes = list(accumulate(part.spec.factors, mul, initial=part.spec.patch_size))
            sides |= dict(zip(part.encoder.levels, sizes, strict=True))
            sides |= dict(zip(part.decoder.levels, reversed(sizes), strict=True))
    return sides


def parameter_groups(module: nn.Module, lr: float, weight_decay: float) -> list[dict[str, Any]]:
    """Optimizer groups with "name", "params", "lr" and "weight_decay"; empty groups are left out."""
    mapping = parameters_inside(module, (MappingNetwork, AdaRMSNorm))
    embedding = parameters_inside(module, (ConditionEmbedding, AugmentationEmbedding)) - mapping
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for parameter in module.parameters():
        decays = parameter.ndim > 1 and parameter not in embedding
        groups.setdefault((parameter in mapping, decays), []).append(parameter)
    return [
        {
            "name": ("mapping" if is_mapping else "tokens") + ("" if decays else ", undecayed"),
            "params": parameters,
            "lr": lr * MAPPING_LR_SCALE if is_mapping else lr,
            "weight_decay": weight_decay if decays else 0.0,
        }
        for (is_mapping, decays), parameters in groups.items()
    ]


def parameters_inside(module: nn.Module, kinds: tuple[type[nn.Module], ...]) -> set[nn.Parameter]:
    """The parameters of all submodules of the given kinds."""
    parts = [part for part in module.modules() if isinstance(part, kinds)]
    return {parameter for part in parts for parameter in part.parameters()}
