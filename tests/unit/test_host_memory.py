"""Limits of cgroups on a process's memory, in the files of both versions."""

import pytest

from lediflow.host_memory import free_memory, limits_left

V2 = ("0::/job/step", "", "memory.max", "memory.current", "inactive_file")
V1 = ("4:memory:/job/step", "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


@pytest.mark.parametrize(("line", "place", "limit", "used", "cached"), [V2, V1], ids=["v2", "v1"])
def test_a_limit_of_the_group_or_of_one_above_counts(tmp_path, line, place, limit, used, cached):
    membership = tmp_path / "cgroup"
    membership.write_text(f"9:name=systemd:/\n{line}\n")
    for folder, bytes_allowed in (("job/step", "max"), ("job", "1000")):
        group = tmp_path / "mounted" / place / folder
        group.mkdir(parents=True, exist_ok=True)
        (group / limit).write_text(f"{bytes_allowed}\n")
        (group / used).write_text("700\n")
        (group / "memory.stat").write_text(f"anon 600\n{cached} 100\n")
    assert limits_left(tmp_path / "mounted", membership) == [1000 - 700 + 100]
    assert limits_left(tmp_path / "elsewhere", membership) == limits_left(tmp_path, tmp_path / "absent") == []


def test_some_memory_is_free_here():
    assert free_memory() > 2**20
