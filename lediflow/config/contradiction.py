"""Finds the part of a configuration that its dataclass rejects."""

from __future__ import annotations

from collections.abc import Iterator

from omegaconf import DictConfig, ListConfig, OmegaConf


def key_of_contradiction(node: DictConfig | ListConfig, key: str = "") -> str:
    """The key of the innermost part whose dataclass raises ValueError: model.velocity.levels[1]; "" at the root."""
    for name, part in parts_of(node, key):
        try:
            OmegaConf.to_object(part)
        except ValueError:
            return key_of_contradiction(part, name)
    return key


def parts_of(node: DictConfig | ListConfig, key: str) -> Iterator[tuple[str, DictConfig | ListConfig]]:
    """The mappings and lists directly inside a node, with their full keys."""
    if isinstance(node, DictConfig):
        given = [str(name) for name in node if not OmegaConf.is_missing(node, name)]
        named = [(f"{key}.{name}".lstrip("."), node[name]) for name in given]
    else:
        named = [(f"{key}[{number}]", part) for number, part in enumerate(node)]
    return ((name, part) for name, part in named if isinstance(part, DictConfig | ListConfig))
