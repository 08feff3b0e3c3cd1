"""Waits on conditions, with limits in seconds of an idle machine.

On a busy machine time counts by the share of a core that a process gets.
"""

from __future__ import annotations

import time
from collections.abc import Callable

MEASURE_EVERY_SECONDS = 5.0
SMALLEST_SHARE = 0.1  # a limit is extended to ten times its length at most


def share_of_core(cpu_seconds: float = 0.05) -> float:
    """CPU time over wall time of a short computation: 1 on an idle machine, 1/2 where two processes share each core."""
    wall, cpu = time.perf_counter(), time.process_time()
    while (used := time.process_time() - cpu) < cpu_seconds:
        pass
    return min(1.0, used / (time.perf_counter() - wall))


class Patience:
    """Whether a limit has passed; the machine's speed is measured repeatedly while a test waits."""

    def __init__(
        self,
        seconds: float,
        measure: Callable[[], float] = share_of_core,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.seconds, self.measure, self.clock = seconds, measure, clock
        self.waited = 0.0
        self.share = 1.0
        self.last_look = self.last_measured = clock()

    def is_over(self) -> bool:
        """To be called at every look at what is waited for."""
        now = self.clock()
        if now - self.last_measured >= MEASURE_EVERY_SECONDS:
            self.share = max(SMALLEST_SHARE, self.measure())
            self.last_measured = now
        self.waited += (now - self.last_look) * self.share
        self.last_look = now
        return self.waited > self.seconds


def wait_until(condition: Callable[[], object], seconds: float, pause_seconds: float = 0.02) -> bool:
    """Look until the condition holds: True; False once `seconds` of an idle machine have passed."""
    patience = Patience(seconds)
    while not condition():
        if patience.is_over():
            return False
        time.sleep(pause_seconds)
    return True
