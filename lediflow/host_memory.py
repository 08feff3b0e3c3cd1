"""The main memory that this process may still use."""

from __future__ import annotations

from pathlib import Path

import psutil

# Of cgroups v2 and v1: the mark of their line in /proc/self/cgroup, their folder, and what a group's files are called.
GROUPS = (
    ("0::", ".", "memory.max", "memory.current", "inactive_file"),
    (":memory:", "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def free_memory() -> int:
    """Bytes: what the machine has free, or what the limit of a job or container leaves, if that is less."""
    return min([psutil.virtual_memory().available, *limits_left()])


def limits_left(
    mounted: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")
) -> list[int]:
    """Bytes left by each limit on a cgroup of this process; empty without limits, or where none can be read.

    Cached files count as used there, but those not read lately are given up when memory is short.
    """
    try:
        own = membership.read_text().splitlines()
    except OSError:
        return []
    found = []
    for mark, place, limit, used, cached in GROUPS:
        root = mounted / place
        for line in (line for line in own if mark in line):
            group = root / line.partition(mark)[2].strip("/")
            # inside a container the path may be the host's, of which only the root is visible
            for folder in (group, *(above for above in group.parents if above.is_relative_to(root))):
                try:
                    statistics = dict(
                        row.split() for row in (folder / "memory.stat").read_text().splitlines()
                    )
                    left = int((folder / limit).read_text()) - int((folder / used).read_text())
                except (OSError, ValueError):  # without a limit v2 says "max"
                    continue
                found.append(max(0, left + int(statistics.get(cached, 0))))
    return found
