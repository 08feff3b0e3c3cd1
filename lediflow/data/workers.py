"""Tasks run by several processes, none of which outlives its parent, and results prefetched by threads.

Each worker process holds the read end of a pipe whose write end only the parent holds. When the parent closes it, or
dies in any way, the worker sees the end of the pipe: the current task stops at its next `stop_if_asked()`, so that it
can remove unfinished files, and GRACE_SECONDS later the process exits.
"""

import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import TypeVar

from lediflow.errors import UserError

OnProgress = Callable[[int, int], None]  # (done, total)

Task = TypeVar("Task")
Result = TypeVar("Result")

GRACE_SECONDS = 2.0  # for the current task to stop

_stopping = threading.Event()


class StoppedError(Exception):
    """The parent has exited or needs no more results."""


def available_workers(asked: int) -> int:
    """Number of processes to start; 0 means one per CPU core that this job may use."""
    return asked or len(os.sched_getaffinity(0))


def in_processes(function: Callable[[Task], Result], tasks: Sequence[Task], workers: int) -> Iterator[Result]:
    """Yield results as they become ready, in any order; with one worker, this process runs the tasks itself."""
    workers = min(workers, len(tasks))
    if workers <= 1:
        yield from map(function, tasks)
        return
    context = multiprocessing.get_context("spawn")  # forking a process that has threads can deadlock
    follower, leader = context.Pipe(duplex=False)
    with ProcessPoolExecutor(workers, context, _follow, (follower,)) as pool:
        try:
            with _interrupts_for_parent_alone():
                futures = [pool.submit(function, task) for task in tasks]
            for future in as_completed(futures):
                yield future.result()
        except BrokenProcessPool as error:
            raise UserError(
                "a worker process was killed from outside, perhaps because memory ran out; "
                "the same command continues, and workers=1 needs least memory"
            ) from error
        finally:
            leader.close()
            pool.shutdown(cancel_futures=True)


def prefetch(
    function: Callable[[Task], Result], items: Iterable[Task], *, threads: int = 1, depth: int = 1
) -> Generator[Result, None, None]:
    """Apply a function in threads and yield results in the order of the items.

    At most `depth` results are computed before they are requested. Close the generator to stop early: calls that are
    running finish, and no further call starts.
    """
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > depth:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def stop_if_asked() -> None:
    """Raise StoppedError in a worker whose parent has finished or died; tasks call it between their steps."""
    if _stopping.is_set():
        raise StoppedError


@contextmanager
def _interrupts_for_parent_alone() -> Iterator[None]:
    """Block SIGINT in processes started meanwhile: Ctrl-C reaches every process of a terminal."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _follow(parent: Connection) -> None:
    threading.Thread(target=_exit_after, args=(parent,), daemon=True).start()


def _exit_after(parent: Connection) -> None:
    parent.poll(None)  # nothing is sent: this returns when the other end is closed
    _stopping.set()
    time.sleep(GRACE_SECONDS)
    os._exit(1)
