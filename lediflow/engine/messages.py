"""Small messages between ranks: sums, tables, votes. They travel between CPUs, beside the gradients.

A vote is cast once a step and answered a step later: the messages travel while the next step computes, so that
agreeing costs microseconds and every rank still acts at the same step.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from lediflow.engine.ranks import Ranks


class Messages:
    """Needs the default process group; makes a group of its own on CPUs."""

    def __init__(self, ranks: Ranks) -> None:
        self.ranks = ranks
        self.group = dist.new_group(backend="gloo")
        self.cast: tuple[Tensor, dist.Work] | None = None

    def sum(self, values: Tensor) -> Tensor:
        summed = values.detach().to("cpu", torch.float64, copy=True)
        dist.all_reduce(summed, group=self.group)
        return summed

    def gather(self, values: Tensor) -> Tensor:
        mine = values.detach().to("cpu", torch.float64).contiguous()
        table = [torch.empty_like(mine) for _ in range(self.ranks.world_size)]
        dist.all_gather(table, mine, group=self.group)
        return torch.stack(table)

    def everyones(self, thing: Any) -> list[Any]:
        things: list[Any] = [None] * self.ranks.world_size
        dist.all_gather_object(things, thing, group=self.group)
        return things

    def share(self, thing: Any) -> Any:
        """The first rank's object; it must be picklable."""
        box = [thing]
        dist.broadcast_object_list(box, src=0, group=self.group)
        return box[0]

    def agree(self, votes: list[int]) -> list[int]:
        """The largest of each vote of the previous call; zeros the first time."""
        answer = self._answer(len(votes))
        cast = torch.tensor(votes)
        self.cast = cast, dist.all_reduce(cast, dist.ReduceOp.MAX, group=self.group, async_op=True)
        return answer

    def agree_now(self, votes: list[int]) -> list[int]:
        """The largest of each vote of this call."""
        cast = torch.tensor(votes)
        dist.all_reduce(cast, dist.ReduceOp.MAX, group=self.group)
        return cast.tolist()

    def smallest(self, number: int) -> int:
        """Over the ranks."""
        return -self.agree_now([-number])[0]

    def close(self) -> None:
        """Let the last votes arrive before the group ends."""
        self._answer(0)

    def _answer(self, count: int) -> list[int]:
        if self.cast is None:
            return [0] * count
        (cast, work), self.cast = self.cast, None
        work.wait()
        return cast.tolist()
