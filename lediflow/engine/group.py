"""The ranks of a command that measures: they share work by number, pass blocks around a ring, and stop together.

Messages travel between CPUs (gloo); results never depend on the number of ranks where every number is made by exactly
one of them and the others add zero. One rank needs no process group at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from lediflow.engine.ranks import Ranks
from lediflow.engine.rendezvous import join_group
from lediflow.errors import UserError

PATIENCE = timedelta(days=2)  # a rank that has died is noticed at once; one that works longer is no fault

FIRST_FAILURE = "failed"  # on the board: which rank could not go on, outside of any common undertaking
LOST_CONNECTION = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "gloo")


class RankFailedError(UserError):
    """A rank could not go on, so none does."""


class _OtherFailedError(Exception):
    """Another rank said that it failed."""


class RankGroup:
    """The ranks of this command; collective calls are made by all of them in the same order."""

    def __init__(self, ranks: Ranks | None = None, join_seconds: float = 600.0) -> None:
        self.ranks = ranks or Ranks()
        self.group: dist.ProcessGroup | None = None
        self.board: dist.Store | None = None  # where a rank that fails says so before the others ask
        self.undertakings = 0
        if self.world_size > 1:
            join_group(self.ranks, "gloo", join_seconds)
            self.group = dist.new_group(backend="gloo", timeout=PATIENCE)
            self.board = self._board(timedelta(seconds=join_seconds))
            self.everyones(None)  # all have found the board

    @property
    def rank(self) -> int:
        return self.ranks.rank

    @property
    def world_size(self) -> int:
        return self.ranks.world_size

    @property
    def is_first(self) -> bool:
        return self.ranks.is_first

    def sum(self, values: Tensor) -> Tensor:
        """Over the ranks, float64 on the CPU; exact where all but one of them give zeros."""
        summed = values.detach().to("cpu", torch.float64, copy=True).contiguous()
        if self.group is not None:
            dist.all_reduce(summed, group=self.group)
        return summed

    def everyones(self, thing: Any) -> list[Any]:
        """Every rank's (picklable) object, by rank."""
        things: list[Any] = [thing] * self.world_size
        if self.group is not None:
            dist.all_gather_object(things, thing, group=self.group)
        return things

    def pass_on(self, block: Tensor) -> Tensor:
        """Give a block to the next rank of the ring and take the previous one's; their sizes may differ."""
        if self.group is None:
            return block
        block = block.contiguous()
        shapes = self.everyones(tuple(block.shape))
        after, before = (self.rank + 1) % self.world_size, (self.rank - 1) % self.world_size
        received = torch.empty(shapes[before], dtype=block.dtype)
        sending = dist.isend(block.cpu(), after, group=self.group)
        dist.recv(received, before, group=self.group)
        assert sending is not None  # this rank is of the group
        sending.wait()
        return received.to(block.device)

    def share(self, thing: Any) -> Any:
        """The first rank's (picklable) object."""
        return self.everyones(thing)[0]

    @contextmanager
    def together(self, doing: str) -> Iterator[Callable[[], None]]:
        """The body ends well on every rank, or no rank goes on: each raises, and names the rank that failed.

        A long body calls what it is given now and then: that raises as soon as another rank has failed. The body must
        not hold collective calls, in which the others would be left waiting.
        """
        self.undertakings += 1
        key = f"failed/{self.undertakings}"
        failure: Exception | None = None
        try:
            yield lambda: self._look(key)
        except Exception as error:
            failure = error
            if self.board is not None and not isinstance(error, _OtherFailedError):
                self.board.set(key, sentence(error))
        texts = self.everyones(
            None if failure is None or isinstance(failure, _OtherFailedError) else sentence(failure)
        )
        if failure is not None and not isinstance(failure, _OtherFailedError):
            raise failure
        for rank, text in enumerate(texts):
            if text is not None:
                raise RankFailedError(f"rank {rank} of {self.world_size} failed while {doing}: {text}")

    @contextmanager
    def blaming(self) -> Iterator[None]:
        """Around all the work: an error outside of `together` ends the others in a collective call; they say whose."""
        try:
            yield
        except Exception as error:
            if self.board is None or isinstance(error, RankFailedError):
                raise
            if not is_lost_connection(error):
                self.board.set(
                    FIRST_FAILURE, f"rank {self.rank} of {self.world_size} failed: {sentence(error)}"
                )
                raise
            raise RankFailedError(self._culprit()) from error

    def _culprit(self) -> str:
        """Who ended the work of all, when a connection broke."""
        silent = "ended without a word (killed, or out of memory?); what started it says more"
        assert self.board is not None
        try:
            if self.board.check([FIRST_FAILURE]):
                return self.board.get(FIRST_FAILURE).decode()
        except (RuntimeError, dist.DistError):
            return f"rank 0 of {self.world_size} {silent}"
        return f"a rank of {self.world_size}, not the first, {silent}"

    def _look(self, key: str) -> None:
        if self.board is not None and self.board.check([key]):
            raise _OtherFailedError

    def _board(self, patience: timedelta) -> dist.Store:
        """A store of this group's own at the first rank, on any port that is free there."""
        options: dict[str, Any] = {"wait_for_workers": False, "timeout": patience}
        address, is_first = self.ranks.master_addr, self.is_first
        store = dist.TCPStore(address, 0, is_master=True, **options) if is_first else None
        port = self.share(store.port if store else None)
        return store or dist.TCPStore(address, port, is_master=False, **options)

    def close(self) -> None:
        """Leave the process group."""
        if self.group is not None:
            dist.destroy_process_group()
            self.group = None


def is_lost_connection(error: Exception) -> bool:
    """Whether a collective call ended because another rank is gone."""
    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError) and any(sign in str(error) for sign in LOST_CONNECTION)
    )


def sentence(error: Exception) -> str:
    """What an error says, with its kind where that is not a request that cannot be met."""
    return str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
