"""One rank of a group that compares sets of embeddings: `python -m harness.neighbors_rank`.

Prints every bit of every result, of sets that fill tiles unevenly; the last rank may have no tile at all.
"""

from __future__ import annotations

import hashlib
import json

import torch
from torch import Tensor

from lediflow.engine.group import Group
from lediflow.engine.ranks import find_ranks
from lediflow.evaluation.frechet import feature_statistics
from lediflow.evaluation.neighbors import manifold_metrics, nearest_training, nearest_two, squared_radii
from lediflow.evaluation.tiles import Rows, share

DIM = 37
COUNTS = {"reference": 3100, "samples": 2500, "held_out": 700}


def draws(name: str) -> Tensor:
    """A whole set, equal on every rank; some samples are copies of the reference."""
    generator = torch.Generator().manual_seed(list(COUNTS).index(name))
    values = torch.randn(COUNTS[name], DIM, generator=generator) + 1
    return torch.cat([values[:-30], draws("reference")[500:530]]) if name == "samples" else values


def mine(name: str, group: Group) -> Rows:
    own = share(COUNTS[name], group.rank, group.world_size)
    return Rows(draws(name)[own.start : own.stop].clone(), own.start, COUNTS[name])


def hashed(*tensors: Tensor) -> str:
    return hashlib.sha256(b"".join(tensor.contiguous().numpy().tobytes() for tensor in tensors)).hexdigest()


def results(group: Group) -> dict[str, object]:
    reference, samples, held_out = (mine(name, group) for name in ("reference", "samples", "held_out"))
    return {
        "statistics": hashed(*feature_statistics(reference, group)),
        "radii": hashed(squared_radii(samples, group, 5)),
        "nearest": hashed(*nearest_two(samples, reference, group)),
        "manifold": manifold_metrics(reference, samples, group),
        "nearest_training": nearest_training(reference, held_out, samples, group),
    }


if __name__ == "__main__":
    own_group = Group.join(find_ranks())
    print("results", json.dumps(results(own_group)), flush=True)
    own_group.close()
