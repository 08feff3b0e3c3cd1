"""The Triton kernels build for the GPUs that users have, and fit into their shared memory."""

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
    "geglu_gradient",
}  # fmt: skip


def test_every_kernel_builds_for_real_gpus_and_fits():
    compiled = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    script = Path(__file__).with_name("kernel_builds.py")
    finished = subprocess.run(
        [sys.executable, script], env=compiled, capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stderr[-3000:]
    builds = [json.loads(line) for line in finished.stdout.splitlines()]
    assert {(build["gpu"], build["kernel"]) for build in builds} == {
        (gpu, kernel) for gpu in LARGEST_BLOCK for kernel in KERNELS
    }
    for build in builds:
        assert build["shared_bytes"] <= LARGEST_BLOCK[build["gpu"]], build
