"""Processes that share one set without communicating: real processes, killed ones, and more than there are shards."""

import os
import signal
import subprocess
import sys

import pytest
from harness.commands import succeed

from lediflow.data.encode import EncodeConfig, encode
from lediflow.data.prepare import PrepareConfig, prepare
from lediflow.errors import UserError

pytestmark = pytest.mark.processes

KILLED_MIDWAY = """
import os, signal, sys
from lediflow.data.encode import EncodeConfig, encode
stop = lambda done, total: done and os.kill(os.getpid(), signal.SIGKILL)
encode(EncodeConfig(source=sys.argv[1], output=sys.argv[2], rank=1, ranks=3, device="cpu"), stop)
"""

# five processes, forked once everything is imported; every round begins when the last one is ready for it
ALL_AT_ONCE = """
import os, sys
from pathlib import Path
from lediflow.data.encode import EncodeConfig, encode

def work(rank, ranks, rounds):
    for number in range(rounds):
        Path(output, f"ready-{number}-{rank}").touch()
        while len(list(Path(output).glob(f"ready-{number}-*"))) < ranks:
            os.sched_yield()  # without a pause, and without the processor that the last one needs
        folder = f"{output}/round-{number}"
        encode(EncodeConfig(source=source, output=folder, rank=rank, ranks=ranks, device="cpu", threads=1))

source, output, ranks, rounds = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
children = []
for rank in range(ranks):
    child = os.fork()
    if not child:
        work(rank, ranks, rounds)
        os._exit(0)
    children.append(child)
sys.exit(max(os.waitpid(child, 0)[1] for child in children))
"""


def start(*arguments, **variables) -> subprocess.Popen:
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | variables
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def ended(process: subprocess.Popen) -> tuple[int, str]:
    output = process.communicate(timeout=120)[0]
    return process.returncode, output


def files(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def alone(shards, tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    encode(EncodeConfig(source=str(shards), output=str(folder), device="cpu"))
    return files(folder)


def test_three_ranks_with_one_killed_give_the_result_of_one(shards, tmp_path, alone, monkeypatch):
    command = ["-m", "lediflow.encode", f"source={shards}", f"output={tmp_path}", "device=cpu"]
    array = {"ID": "12", "MIN": "10", "COUNT": "3", "STEP": "1"}
    killed = start("-c", KILLED_MIDWAY, shards, tmp_path)
    in_array = start(*command, **{f"SLURM_ARRAY_TASK_{name}": value for name, value in array.items()})
    ours = encode(EncodeConfig(source=str(shards), output=str(tmp_path), rank=0, ranks=3, device="cpu"))
    assert ended(killed)[0] == -signal.SIGKILL
    status, said = ended(in_array)
    assert status == 0
    assert "rank 2 of 3 has written its shards" in said and "of other ranks are missing" in said
    assert ours.index is None and not (tmp_path / "index.json").exists()

    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "3")
    said = succeed("encode", *command[2:], "--check", 5).out
    assert "encoded: 50 samples of 3 x 16 x 16 by pixels" in said
    assert "checked 5 samples: all come back exactly" in said
    assert {name: made for name, made in files(tmp_path).items() if not name.startswith("check")} == alone


def test_five_ranks_that_start_at_one_moment_share_three_shards(pictures, tmp_path):
    source, output, rounds = tmp_path / "images", tmp_path / "latents", 5
    prepare(PrepareConfig(source=str(pictures), output=str(source), size=16, shard_samples=20, workers=1))
    encode(EncodeConfig(source=str(source), output=str(tmp_path / "alone"), device="cpu"))
    output.mkdir()
    assert ended(start("-c", ALL_AT_ONCE, source, output, 5, rounds)) == (0, "")
    for number in range(rounds):
        assert files(output / f"round-{number}") == files(tmp_path / "alone")


def test_a_rank_that_does_not_exist_is_refused(shards, tmp_path):
    config = EncodeConfig(source=str(shards), output=str(tmp_path), rank=3, ranks=3)
    with pytest.raises(UserError, match="rank=3 of ranks=3 does not exist; ranks are numbered from 0"):
        encode(config)
