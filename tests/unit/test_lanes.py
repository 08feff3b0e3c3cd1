"""Tests that start processes are found (tests/harness/lanes.py), so that `make test-fast` has none."""

import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest
from harness.lanes import is_interpreter

STARTS = {
    "subprocess": lambda: subprocess.run([sys.executable, "-c", ""]),
    "fork": os.fork,
    "multiprocessing": lambda: multiprocessing.get_context("spawn").Process(target=print).start(),
}


@pytest.fixture
def guard(request):
    found = request.config.pluginmanager.get_plugin("process guard")
    yield found
    found.refused.clear()


@pytest.mark.parametrize("start", STARTS.values(), ids=STARTS)
def test_a_test_without_the_marker_may_not_start_processes(guard, start):
    with pytest.raises(pytest.fail.Exception, match="starts a process without the marker `processes`"):
        start()
    assert len(guard.refused) == 1  # which fails the test even if its own code catches the exception
    guard.refused.clear()


def test_programs_that_end_in_milliseconds_are_allowed_without_the_marker():
    assert subprocess.run(["true"]).returncode == 0


@pytest.mark.processes
def test_with_the_marker_it_starts():
    assert subprocess.run([sys.executable, "-c", ""]).returncode == 0


@pytest.mark.parametrize(
    "command", ["python", "/usr/bin/python3.11 -m x", ["torchrun", "x"], [b"python3"], [Path("/a/python")]]
)
def test_an_interpreter_is_known_by_its_name(command):
    assert is_interpreter(command)


@pytest.mark.parametrize("command", ["git status", ["bash", "-c", "python"], [b"squeue"], Path("/bin/true")])
def test_other_programs_are_not_interpreters(command):
    assert not is_interpreter(command)
