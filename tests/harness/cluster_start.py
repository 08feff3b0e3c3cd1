"""Start of a SLURM of four nodes, and the reason if it cannot be started.

Every cluster takes a folder, ports and a network that are free, so that several run at the same time.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from harness.cluster import Cluster

PORTS = 60  # of one cluster
WORKERS = 8  # of pytest-xdist at most; each takes its cluster's ports from its own range


@contextlib.contextmanager
def running_cluster(**options: object) -> Iterator[Cluster]:
    """A cluster for the duration of the block; options of cluster.sh in lower case, without TESTCLUSTER_."""
    folder = Path(tempfile.mkdtemp(prefix="tc-", dir="/tmp"))  # short: it contains sockets
    given = {f"TESTCLUSTER_{name.upper()}": str(value) for name, value in options.items()}
    with small_disk() as disk:
        cluster = Cluster(folder, free_place() | {"TESTCLUSTER_NODES": "4"} | given, disk)
        try:
            start(cluster)
            yield cluster
        finally:
            cluster.control("down")
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def small_disk(megabytes: int = 24) -> Iterator[Path | None]:
    """A small disk, for nodes that start later; None if it cannot be mounted."""
    folder = Path(tempfile.mkdtemp(prefix="small-disk-"))
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    is_mounted = subprocess.run(mount, capture_output=True).returncode == 0
    try:
        yield folder if is_mounted else None
    finally:
        if is_mounted:
            subprocess.run(["umount", str(folder)], check=True)
        folder.rmdir()


def start(cluster: Cluster) -> None:
    try:
        cluster.control("up")
    except AssertionError as error:
        error.add_note(cluster.logs())  # their folder is removed
        raise


def free_place() -> dict[str, str]:
    """Free ports and a free network, drawn at random: other clusters may be starting at the same time."""
    drawn = random.SystemRandom()
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % WORKERS
    places = range(20000 + PORTS * worker, 30000, PORTS * WORKERS)
    port = drawn.choice(places)
    while not all(is_free(one) for one in range(port, port + PORTS)):
        port = drawn.choice(places)
    network = f"10.{drawn.randrange(64, 128)}.{drawn.randrange(256)}"
    return {"TESTCLUSTER_PORT": str(port), "TESTCLUSTER_NET": network}


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def missing_slurm() -> str:
    """Why no cluster can be started here; empty if one can."""
    programs = ("slurmctld", "slurmd", "slurmdbd", "munged", "mariadbd", "sbatch")
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    missing = [program for program in programs if not shutil.which(program, path=path)]
    return f"SLURM is not installed here ({', '.join(missing)} missing)" if missing else ""


def is_root_on_debian() -> bool:
    return os.geteuid() == 0 and Path("/etc/debian_version").exists()
