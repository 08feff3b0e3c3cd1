"""The ranks that work together: how they meet, and every message that they exchange besides gradients and weights.

Messages travel between CPUs (gloo). Numbers do not depend on the number of ranks where each is made by exactly one rank
and the others add zero: such sums are exact. `Group()` is one rank alone: it needs no process group, and every method
returns what this rank passed.

A vote (`agree`) is cast once a step and answered one step later: it travels while the next step computes, so that
agreeing costs microseconds and all ranks still act at the same step.

Rendezvous. torch waits for missing ranks for half an hour inside C++, where no Python signal handler runs. Here each
rank registers in a store at rank 0 and polls it, and a failure names the ranks that did not join. torchrun has a
rendezvous of its own, which is used where it started the ranks. There a rank ends when torchrun ends while it joins,
since the store, for which torch would wait, has gone with torchrun.
"""

from __future__ import annotations

import itertools
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float64
from torch import Tensor

from lediflow.engine.ranks import Ranks
from lediflow.errors import UserError

MEETING = timedelta(minutes=30)  # to wait for an entry of torchrun's store
LAUNCHER = os.getppid()  # when this process began; a parent that ends is replaced by another
PATIENCE = timedelta(days=2)  # a dead rank is noticed at once; a rank that works for longer has not failed

FIRST_FAILURE = "failed"  # key in the store: which rank failed outside of any `together`
LOOK_EVERY_SECONDS = 0.05  # between two looks for missing ranks
LAUNCHER_SECONDS = 0.5  # between two looks whether torchrun is there
TRY_SECONDS = 2.0  # timeout of one attempt to reach rank 0; signals are handled between two attempts
joined = itertools.count()  # groups that this process has joined; the same on all ranks
LOST_CONNECTION = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "gloo")


class RankFailedError(UserError):
    """Another rank failed, so this one cannot go on."""


class _OtherFailedError(Exception):
    """Another rank wrote into the store that it failed."""


class Group:
    """The ranks of a command. All of them call the same methods in the same order; each method waits for all ranks.

    `gloo` is a process group over CPUs, None for one rank. `store` is where a rank writes that it failed before its
    connections break; without one, `together` and `blaming` notice failures only by broken connections.
    """

    def __init__(
        self,
        ranks: Ranks | None = None,
        gloo: dist.ProcessGroup | None = None,
        store: dist.Store | None = None,
    ) -> None:
        self.ranks = ranks or Ranks()
        self.gloo, self.store = gloo, store
        self.together_calls = 0  # names the entry in the store where a failure of this call is written
        self.vote: tuple[Tensor, dist.Work] | None = None  # the last one, whose all-reduce may be under way

    @classmethod
    def join(cls, ranks: Ranks, join_seconds: float = 600.0) -> Group:
        """A group of all ranks, with a store; UserError if a rank does not join within `join_seconds`."""
        if ranks.world_size == 1:
            return cls(ranks)
        join_group(ranks, "gloo", join_seconds)
        group = cls(ranks, dist.new_group(backend="gloo", timeout=PATIENCE))
        group.store = group._connect_store(timedelta(seconds=join_seconds))
        group.all_gather(None)  # every rank has found the store
        return group

    @property
    def rank(self) -> int:
        return self.ranks.rank

    @property
    def world_size(self) -> int:
        return self.ranks.world_size

    @property
    def is_first(self) -> bool:
        return self.ranks.is_first

    def sum(self, values: Tensor) -> Float64[Tensor, "*dims"]:
        """Sum over the ranks, float64 on the CPU; exact where all ranks but one pass zeros."""
        summed = values.detach().to("cpu", torch.float64, copy=True).contiguous()
        if self.gloo is not None:
            dist.all_reduce(summed, group=self.gloo)
        return summed

    def stack(self, values: Tensor) -> Float64[Tensor, " ranks *dims"]:
        """The tensors of all ranks, by rank, float64 on the CPU; their shapes must be equal."""
        own = values.detach().to("cpu", torch.float64).contiguous()
        if self.gloo is None:
            return own[None]
        rows = [torch.empty_like(own) for _ in range(self.world_size)]
        dist.all_gather(rows, own, group=self.gloo)
        return torch.stack(rows)

    def all_gather(self, thing: Any) -> list[Any]:
        """The objects of all ranks, by rank; they must be picklable."""
        things: list[Any] = [thing] * self.world_size
        if self.gloo is not None:
            dist.all_gather_object(things, thing, group=self.gloo)
        return things

    def broadcast(self, thing: Any) -> Any:
        """Rank 0's object, which must be picklable; what other ranks pass is ignored."""
        # An all-gather, so that rank 0 waits as well: callers may change on rank 0 what the others still read.
        return self.all_gather(thing if self.is_first else None)[0]

    def pass_on(self, block: Tensor) -> Tensor:
        """Send a block to the next rank of the ring and receive the previous rank's; sizes may differ."""
        if self.gloo is None:
            return block
        block = block.contiguous()
        shapes = self.all_gather(tuple(block.shape))
        after, before = (self.rank + 1) % self.world_size, (self.rank - 1) % self.world_size
        received = torch.empty(shapes[before], dtype=block.dtype)
        sending = dist.isend(block.cpu(), after, group=self.gloo)
        dist.recv(received, before, group=self.gloo)
        assert sending is not None  # None is for ranks outside of the group
        sending.wait()
        return received.to(block.device)

    def agree(self, votes: list[int]) -> list[int]:
        """Element-wise maximum over the ranks, of the previous call: zeros the first time. It does not wait.

        One rank alone gets the maximum of this call.
        """
        if self.gloo is None:
            return votes
        answer = self._answer(len(votes))
        cast = torch.tensor(votes)
        self.vote = cast, dist.all_reduce(cast, dist.ReduceOp.MAX, group=self.gloo, async_op=True)
        return answer

    def agree_now(self, votes: list[int]) -> list[int]:
        """Element-wise maximum over the ranks, of this call."""
        cast = torch.tensor(votes)
        if self.gloo is not None:
            dist.all_reduce(cast, dist.ReduceOp.MAX, group=self.gloo)
        return cast.tolist()

    def smallest(self, number: int) -> int:
        """The smallest number over the ranks."""
        return -self.agree_now([-number])[0]

    def flush(self) -> None:
        """Wait for the last vote; call it before the process group ends."""
        self._answer(0)

    def close(self) -> None:
        """Leave the process group."""
        self.flush()
        if self.gloo is not None:
            dist.destroy_process_group()
            self.gloo = None

    def _answer(self, count: int) -> list[int]:
        if self.vote is None:
            return [0] * count
        (cast, work), self.vote = self.vote, None
        work.wait()
        return cast.tolist()

    @contextmanager
    def together(self, doing: str) -> Iterator[Callable[[], None]]:
        """The body succeeds on every rank, or every rank raises; ranks that succeeded raise RankFailedError.

        A long body should call the yielded function now and then: it raises as soon as another rank has failed. The
        body must not contain collective calls, in which the other ranks would hang.
        """
        self.together_calls += 1
        key = f"failed/{self.together_calls}"
        failure: Exception | None = None
        try:
            yield lambda: self._look(key)
        except Exception as error:
            failure = error
            if self.store is not None and not isinstance(error, _OtherFailedError):
                self.store.set(key, sentence(error))
        texts = self.all_gather(
            None if failure is None or isinstance(failure, _OtherFailedError) else sentence(failure)
        )
        if failure is not None and not isinstance(failure, _OtherFailedError):
            raise failure
        for rank, text in enumerate(texts):
            if text is not None:
                raise RankFailedError(f"rank {rank} of {self.world_size} failed while {doing}: {text}")

    @contextmanager
    def blaming(self) -> Iterator[None]:
        """A context for all work: where another rank failed outside of `together`, the error names that rank.

        Such a failure breaks the collective calls of the others, whose errors do not say why.
        """
        try:
            yield
        except Exception as error:
            if self.store is None or isinstance(error, RankFailedError):
                raise
            if not is_lost_connection(error):
                self.store.set(
                    FIRST_FAILURE, f"rank {self.rank} of {self.world_size} failed: {sentence(error)}"
                )
                raise
            raise RankFailedError(self._find_culprit()) from error

    def _find_culprit(self) -> str:
        """A sentence about the rank that failed, after a connection broke."""
        silent = "ended without a message (killed, or out of memory?); its launcher may have logged more"
        assert self.store is not None
        try:
            if self.store.check([FIRST_FAILURE]):
                return self.store.get(FIRST_FAILURE).decode()
        except (RuntimeError, dist.DistError):
            return f"rank 0 of {self.world_size} {silent}"
        return f"a rank of {self.world_size}, not the first, {silent}"

    def _look(self, key: str) -> None:
        if self.store is not None and self.store.check([key]):
            raise _OtherFailedError

    def _connect_store(self, timeout: timedelta) -> dist.Store:
        """A store of this group's own at rank 0, on any port that is free there."""
        options: dict[str, Any] = {"wait_for_workers": False, "timeout": timeout}
        address = self.ranks.master_addr
        store = dist.TCPStore(address, 0, is_master=True, **options) if self.is_first else None
        port = self.broadcast(store.port if store else None)
        return store or dist.TCPStore(address, port, is_master=False, **options)


def is_lost_connection(error: Exception) -> bool:
    """Whether a collective call failed because another rank is gone."""
    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError) and any(sign in str(error) for sign in LOST_CONNECTION)
    )


def sentence(error: Exception) -> str:
    """The message of an error; its type comes first unless it is a UserError."""
    return str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"


# --- rendezvous


def join_group(ranks: Ranks, backend: str, seconds: float) -> None:
    """Make the default process group; UserError if a rank has not joined within `seconds`."""
    os.environ.update(ranks.environment())
    if dist.is_initialized():
        return
    options: dict[str, Any] = {"rank": ranks.rank, "world_size": ranks.world_size}
    if "TORCHELASTIC_RUN_ID" in os.environ:
        with ending_with(LAUNCHER):
            dist.init_process_group(backend, store=torchrun_store(), **options)
        return
    store = rendezvous(ranks, seconds)
    os.environ["MASTER_PORT"] = str(store.port)
    dist.init_process_group(backend, store=store, **options)


@contextmanager
def ending_with(launcher: int) -> Iterator[None]:
    """A context in which this process ends, at once, when its parent `launcher` has ended.

    torch waits inside C++, where no exception reaches it. The lease of a process that is gone can be taken at once.
    """
    is_over = threading.Event()

    def watch() -> None:
        while not is_over.wait(LAUNCHER_SECONDS):
            if os.getppid() != launcher:
                print("error: torchrun has ended while its ranks were joining; start again", file=sys.stderr)
                sys.stderr.flush()
                os._exit(1)

    watcher = threading.Thread(target=watch, name="launcher", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        is_over.set()
        watcher.join()


def torchrun_store() -> dist.Store:
    """torchrun's store, in which each group of this process has keys of its own.

    The store outlives a group: without a prefix the next one would find the addresses of the last one's connections.
    """
    from torch.distributed.rendezvous import rendezvous as meet

    store, _, _ = next(meet("env://", timeout=MEETING))
    return dist.PrefixStore(f"group {next(joined)}", store)


def rendezvous(ranks: Ranks, seconds: float, clock: Callable[[], float] = time.monotonic) -> dist.TCPStore:
    """A store in which every rank has registered; UserError if one has not within `seconds`."""
    end = clock() + seconds
    store = _connect(ranks, end, clock)
    store.set(f"here/{ranks.rank}", "1")
    missing = list(range(ranks.world_size))
    while missing := [rank for rank in missing if not store.check([f"here/{rank}"])]:
        if clock() > end:
            names = ", ".join(map(str, missing))
            raise UserError(
                f"rank {names} of {ranks.world_size} did not join within {seconds:.0f} s (engine.join_seconds); "
                "read its own output, or raise engine.join_seconds if it was only slow"
            )
        time.sleep(LOOK_EVERY_SECONDS)
    return store


def _connect(ranks: Ranks, end: float, clock: Callable[[], float]) -> dist.TCPStore:
    """Rank 0's store; rank 0 may start later than this rank."""
    while True:
        try:
            return dist.TCPStore(
                ranks.master_addr,
                ranks.master_port,
                is_master=ranks.is_first,
                timeout=timedelta(seconds=TRY_SECONDS),
                wait_for_workers=False,
            )
        except (dist.DistError, RuntimeError) as error:
            if ranks.is_first:
                raise UserError(
                    f"rank 0 cannot listen at {ranks.master_addr}:{ranks.master_port} ({str(error).splitlines()[0]}); "
                    "set MASTER_PORT to a port that is free on the first node"
                ) from error
            if clock() > end:
                raise UserError(
                    f"rank {ranks.rank} cannot reach rank 0 at {ranks.master_addr}:{ranks.master_port} "
                    f"({str(error).splitlines()[0]}); check that rank 0 is running and that MASTER_ADDR names its "
                    "machine"
                ) from error
            time.sleep(LOOK_EVERY_SECONDS)
