"""Groups the parameters for the optimizer.

Weight decay applies to the linear maps of tokens and of the mapping network. It does not apply to norms, attention
scales, skip fractions and the embeddings of time, class, conditioning and augmentation. The mapping network and the
linear maps of its output have a third of the learning rate.
Source: k-diffusion's `image_transformer_v2`.
"""

from typing import Any

from torch import nn

from lediflow.nn.embeddings import AugmentationEmbedding, ConditionEmbedding, MappingNetwork
from lediflow.nn.norms import AdaRMSNorm

MAPPING_LR_SCALE = 1 / 3


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
