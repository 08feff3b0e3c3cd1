"""The Triton kernels build for the GPUs that users have, fit into their shared memory, and are in compiled graphs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.processes

LARGEST_BLOCK = {"RTX 3090": 99 * 1024, "H100": 227 * 1024}  # bytes of shared memory; CUDA programming guide
KERNELS = {
    "attention", "query_gradient", "key_value_gradient", "split_and_rotate", "split_and_rotate_gradient", "geglu",
    "geglu_gradient", "attend", "attend_gradient", "attend_projected", "draws",
}  # fmt: skip


def lines_of(script):
    """What a script prints, in a process whose Triton compiles; a line of JSON each."""
    compiled = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    command = [sys.executable, Path(__file__).with_name(script)]
    finished = subprocess.run(command, env=compiled, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr[-3000:]
    return [json.loads(line) for line in finished.stdout.splitlines()]


def test_every_kernel_builds_for_real_gpus_and_fits():
    builds = lines_of("kernel_builds.py")
    assert {(build["gpu"], build["kernel"]) for build in builds} == {
        (gpu, kernel) for gpu in LARGEST_BLOCK for kernel in KERNELS
    }
    for build in builds:
        assert build["shared_bytes"] <= LARGEST_BLOCK[build["gpu"]], build


def test_one_compiled_graph_contains_the_kernels_forward_and_backward():
    [graphs] = lines_of("kernel_graphs.py")
    forward = ["split_and_rotate", "geglu", "attention"]
    backward = ["query_gradient", "key_value_gradient", "geglu_gradient", "split_and_rotate_gradient"]
    assert {name: sorted(found) for name, found in graphs.items()} == {
        "forward": sorted(forward),
        "backward": sorted(backward),
    }
