"""One rank of a group that measures; run as `python -m harness.group_rank SCENARIO`."""

from __future__ import annotations

import os
import signal
import sys
import time

import torch

from lediflow.engine.group import Group
from lediflow.engine.ranks import find_ranks
from lediflow.errors import UserError

SLOW_SECONDS = 120.0  # how long a rank works that does not learn of a failure


def ring(group: Group) -> None:
    """Blocks of different sizes go round until each is home."""
    block = torch.full((group.rank + 1,), float(group.rank))
    seen = []
    for _ in range(group.world_size):
        block = group.pass_on(block)
        seen.append((len(block), block.unique().item()))
    print("seen", seen, flush=True)


def sums(group: Group) -> None:
    """Every number is one rank's, the others add zeros."""
    values = torch.zeros(7, dtype=torch.float64)
    values[group.rank] = 0.1 * (group.rank + 1)
    print("sum", [value.hex() for value in group.sum(values).tolist()], flush=True)


def votes(group: Group) -> None:
    """Votes are answered one call later; everything else at once."""
    print("votes", [group.agree([group.rank * call, 1]) for call in range(3)], flush=True)
    print("now", group.agree_now([group.rank]), group.smallest(group.rank), flush=True)
    print("rows", group.stack(torch.tensor([group.rank])).tolist(), flush=True)
    print("broadcast", group.broadcast(f"rank {group.rank}"), flush=True)


def failing(group: Group) -> None:
    """The last rank fails while the others have much to do."""
    with group.together("counting sheep") as others:
        if group.rank == group.world_size - 1:
            raise UserError("no sheep in this field; look in the next one")
        end = time.monotonic() + SLOW_SECONDS
        while time.monotonic() < end:
            others()
            time.sleep(0.01)


def twice(group: Group) -> None:
    """After a failed section the next one works, and after the group its ranks join another."""
    try:
        failing(group)
    except UserError as error:
        print("first:", error, flush=True)
    with group.together("resting") as others:
        others()
    print("rested", flush=True)
    group.close()
    later = Group.join(group.ranks)
    # in one piece: ranks share their output
    print(f"met again: {later.sum(torch.ones(1)).item()}", flush=True)
    later.close()


def lonely(group: Group) -> None:
    """The last rank fails at something of its own while the others wait in a sum."""
    with group.blaming():
        if group.rank == group.world_size - 1:
            raise ValueError("a slip of the pen")
        group.sum(torch.zeros(1))


def killed(group: Group) -> None:
    """A rank is gone without a word while the others wait in a sum."""
    with group.blaming():
        if group.rank == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)
        group.sum(torch.zeros(1))


SCENARIOS = {
    "ring": ring, "sums": sums, "votes": votes, "failing": failing, "twice": twice, "lonely": lonely, "killed": killed,
}  # fmt: skip

if __name__ == "__main__":
    own = Group.join(find_ranks())
    try:
        SCENARIOS[sys.argv[1]](own)
    finally:
        own.close()
