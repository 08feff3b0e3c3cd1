"""The real images that generated ones are compared with: their features, which of them took part in training.

Features are computed once and kept in a file with a fingerprint: data index, codec, image size, preprocessing, weights
of the extractor, number of images. Runs on latents have two references: the photographs, and their reconstructions by
the codec, beyond which no model of its latents can come. The distance between the two is the codec's floor.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lediflow.engine.group import Group
from lediflow.errors import UserError
from lediflow.evaluation.distances.rows import Rows
from lediflow.evaluation.embedding import FeatureSet, Numbers
from lediflow.evaluation.fingerprint import digest

SPLITS = ("all", "train", "heldout")


@dataclass(frozen=True)
class Reference:
    """Features of real images by number, and which of these the metric is about."""

    name: str  # photographs | reconstructions
    features: FeatureSet
    chosen: Numbers  # what samples are compared with
    is_held_out: Bool[np.ndarray, " images"] | None  # of all; None: the run was not trained on these images

    @property
    def fingerprint(self) -> str:
        """Of everything the metric's reference depends on."""
        chosen = hashlib.sha256(self.chosen.tobytes()).hexdigest()
        return digest(self.features.fingerprint | {"chosen": chosen})

    def rows(self, group: Group, device: torch.device | str) -> Rows:
        return self.features.chosen(self.chosen, group, device)

    def batches(self, size: int) -> Iterator[tuple[int, Float[Tensor, "batch dim"]]]:
        """Numbered batches of features, for what needs to see each only once."""
        return self.features.batches(size, self.chosen)

    def training(self, group: Group, device: torch.device | str) -> Rows | None:
        """What the model may have memorised."""
        return self._part(False, group, device)

    def held_out(self, group: Group, device: torch.device | str) -> Rows | None:
        """What it cannot have: of the same kind, but never seen."""
        return self._part(True, group, device)

    def halves(self, group: Group, device: torch.device | str) -> tuple[Rows, Rows]:
        """Every other image: two sets that differ by chance alone."""
        first, second = (self.features.chosen(self.chosen[start::2], group, device) for start in (0, 1))
        return first, second

    def _part(self, held_out: bool, group: Group, device: torch.device | str) -> Rows | None:
        if self.is_held_out is None:
            return None
        numbers = np.flatnonzero(self.is_held_out == held_out)
        return self.features.chosen(numbers, group, device) if len(numbers) else None


def chosen_numbers(split: str, is_held_out: Bool[np.ndarray, " images"] | None, count: int) -> Numbers:
    """Of the images of a split."""
    if split not in SPLITS:
        raise UserError(f"data.split={split} is not known; choose one of {', '.join(SPLITS)}")
    if split == "all":
        return np.arange(count)
    if is_held_out is None or not is_held_out.any():
        raise UserError(
            f"data.split={split}, but the run was not trained on a part of these images (data.held_out_fraction of its "
            "training); use data.split=all"
        )
    return np.flatnonzero(is_held_out == (split == "heldout"))
