"""The diagram of the package's layers in docs/architecture.md, from the contract in pyproject.toml.

The contract is the one of type "layers" that `lint-imports` checks: its first layer is the highest; members of a layer
that are separated by "|" may not import each other, members separated by ":" may. The diagram is a Mermaid flowchart.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path

PACKAGE = "lediflow."
COMPACT = '%%{init: {"flowchart": {"rankSpacing": 18, "padding": 8, "wrappingWidth": 800}}}%%'


def contract_layers(root: Path) -> list[str]:
    """The layers of the contract, highest first, each with its members and their separators."""
    content = tomllib.loads((root / "pyproject.toml").read_text())
    contracts = content["tool"]["importlinter"]["contracts"]
    layered = [contract for contract in contracts if contract["type"] == "layers"]
    # of the whole package
    (layers,) = (contract["layers"] for contract in layered if "containers" not in contract)
    return [layer.replace(PACKAGE, "") for layer in layers]


def picture(layers: Sequence[str]) -> str:
    """A box for each layer, and an arrow from each to the next lower one."""
    boxes = [f'  layer{number}["{layer}"]' for number, layer in enumerate(layers)]
    arrows = [f"  layer{number} --> layer{number + 1}" for number in range(len(layers) - 1)]
    return "\n".join(["```mermaid", COMPACT, "flowchart TB", *boxes, *arrows, "```"])


def block(root: Path) -> str:
    """The part of docs/architecture.md that `render_results.py` writes."""
    return picture(contract_layers(root))
