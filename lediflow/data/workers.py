"""A function applied to many tasks by several processes."""

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")


def in_processes(function: Callable[[Task], Result], tasks: Sequence[Task], workers: int) -> Iterator[Result]:
    """Results as they get ready, in any order; one worker is this process itself."""
    workers = min(workers, len(tasks))
    if workers <= 1:
        yield from map(function, tasks)
        return
    context = multiprocessing.get_context("spawn")  # a forked copy of a process that has threads can lock up
    with ProcessPoolExecutor(workers, context, initializer=_follow_parent) as pool:
        try:
            for future in as_completed([pool.submit(function, task) for task in tasks]):
                yield future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _follow_parent() -> None:
    # The pool's processes would outlive a killed parent, waiting for tasks.
    threading.Thread(target=_exit_after_parent, daemon=True).start()


def _exit_after_parent() -> None:
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)
