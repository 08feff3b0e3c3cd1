"""Starting a SLURM of four nodes where it disturbs nobody, and why it cannot be started.

Every cluster takes a folder, ports and a network that nobody has, so that several live side by side.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

from harness.cluster import Cluster

PORTS = 60  # that a cluster takes


@contextlib.contextmanager
def running_cluster(**options: object) -> Iterator[Cluster]:
    """A cluster as long as the block lasts; options as cluster.sh's, in small letters without TESTCLUSTER_."""
    folder = Path(tempfile.mkdtemp(prefix="tc-", dir="/tmp"))  # short: sockets lie below it
    given = {f"TESTCLUSTER_{name.upper()}": str(value) for name, value in options.items()}
    cluster = Cluster(folder, free_place() | {"TESTCLUSTER_NODES": "4"} | given)
    try:
        start(cluster)
        yield cluster
    finally:
        cluster.control("down")
        shutil.rmtree(folder, ignore_errors=True)


def start(cluster: Cluster) -> None:
    try:
        cluster.control("up")
    except AssertionError as error:
        error.add_note(cluster.logs())  # the folder will be gone
        raise


def free_place() -> dict[str, str]:
    """Ports and a network that nobody has; drawn, for other clusters may be starting at the same time."""
    drawn = random.SystemRandom()
    port = drawn.randrange(20000, 30000, PORTS)
    while not all(is_free(one) for one in range(port, port + PORTS)):
        port = drawn.randrange(20000, 30000, PORTS)
    network = f"10.{drawn.randrange(64, 128)}.{drawn.randrange(256)}"
    return {"TESTCLUSTER_PORT": str(port), "TESTCLUSTER_NET": network}


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def missing_slurm() -> str:
    """Why no cluster can be started here; empty where one can."""
    programs = ("slurmctld", "slurmd", "slurmdbd", "munged", "mariadbd", "sbatch")
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    missing = [program for program in programs if not shutil.which(program, path=path)]
    return f"SLURM is not installed here ({', '.join(missing)} missing)" if missing else ""


def is_root_on_debian() -> bool:
    return os.geteuid() == 0 and Path("/etc/debian_version").exists()
