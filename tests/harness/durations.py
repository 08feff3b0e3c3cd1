"""The slowest files of a test run and the sum of all, printed at its end. Pytest's --durations lists single tests."""

from __future__ import annotations

from collections import Counter

import pytest

SLOWEST = 10


class FileDurations:
    """A pytest plugin; with pytest-xdist it runs in the controller, which gets the reports of all workers."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.seconds[report.location[0]] += report.duration

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if len(self.seconds) < 2:
            return
        terminalreporter.write_sep("=", f"slowest {SLOWEST} files")
        for name, seconds in self.seconds.most_common(SLOWEST):
            terminalreporter.write_line(f"{seconds:7.1f} s  {name}")
        terminalreporter.write_line(f"{sum(self.seconds.values()):7.1f} s  all {len(self.seconds)} files")
