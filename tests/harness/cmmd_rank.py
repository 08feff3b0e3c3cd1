"""One rank of a group that compares two sets of embeddings: `python -m harness.cmmd_rank [first-broken-row]`.

Prints every bit of every result, of sets that fill tiles unevenly: one of four ranks has none of the second set.
"""

from __future__ import annotations

import hashlib
import json
import sys

import torch
from torch import Tensor

from harness.embeddings import clustered, spread
from lediflow.engine.group import Group
from lediflow.engine.ranks import find_ranks
from lediflow.evaluation.cmmd import StreamingCMMD, cmmd_estimate
from lediflow.evaluation.mmd import Estimate, Polynomial, estimate, kernel_sums
from lediflow.evaluation.tiles import Rows, share

DIM = 37
BATCH = 50


def sets() -> tuple[Tensor, Tensor]:
    """Both whole sets, equal on every rank: five tiles and three."""
    return spread(4700, DIM, seed=1).float(), clustered(2100, DIM, seed=2).float()


def mine(values: Tensor, group: Group) -> Rows:
    own = share(len(values), group.rank, group.world_size)
    return Rows(values[own.start : own.stop].clone(), own.start, len(values))


def exact_digits(found: Estimate) -> list[str]:
    influences = hashlib.sha256(found.influence_x.numpy().tobytes() + found.influence_y.numpy().tobytes())
    numbers = [found.biased, found.unbiased, found.standard_error, *found.interval()]
    return [*(number.hex() for number in numbers), influences.hexdigest()]


def streamed(values: Tensor, group: Group) -> StreamingCMMD:
    """All batches of a jackknife's group are one rank's."""
    stream = StreamingCMMD(DIM)
    for piece, batch in enumerate(values.split(BATCH)):
        if piece % stream.groups % group.world_size == group.rank:
            stream.update(batch, piece)
    return stream.reduce(group)


def results(group: Group) -> dict[str, list[str]]:
    x, y = sets()
    a, b = streamed(x, group), streamed(y, group)
    numbers = [*a.distance(b), *a.unbiased_distance(b), *a.interval(b)]
    return {
        "exact": exact_digits(cmmd_estimate(mine(x, group), mine(y, group), group)),
        "kid": exact_digits(estimate(kernel_sums(mine(x, group), mine(y, group), Polynomial(), group))),
        "streaming": [number.hex() for number in numbers],
    }


def refusal(first: int, group: Group) -> str:
    """What is said where two rows are not numbers."""
    x, y = sets()
    x[[first, len(x) - 1]] = torch.nan
    try:
        cmmd_estimate(mine(x, group), mine(y, group), group)
    except ValueError as error:
        return str(error)
    return "accepted"


if __name__ == "__main__":
    own_group = Group.join(find_ranks())
    if sys.argv[1:]:
        print("refusal", refusal(int(sys.argv[1]), own_group), flush=True)
    else:
        print("results", json.dumps(results(own_group)), flush=True)
    own_group.close()
