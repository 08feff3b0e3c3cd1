"""Ranks that come together, and those that do not."""

import threading

import pytest
from harness.processes import free_port, slurm_places, start

from lediflow.engine.group import rendezvous
from lediflow.engine.ranks import Ranks
from lediflow.errors import UserError


@pytest.fixture
def place():
    """rank -> its place among three, which meet at one port."""
    port = free_port()
    return lambda rank: Ranks(rank=rank, world_size=3, local_rank=rank, master_port=port)


def test_ranks_meet_in_any_order_of_arrival(place):
    stores = {}

    def come(rank):
        stores[rank] = rendezvous(place(rank), 60)

    late_first = [threading.Thread(target=come, args=(rank,)) for rank in (2, 1, 0)]
    for thread in late_first:
        thread.start()
        thread.join(0.1)
    for thread in late_first:
        thread.join()
    stores[1].set("word", "heard")
    assert [stores[rank].get("word") for rank in range(3)] == [b"heard"] * 3


def test_missing_ranks_are_named(place):
    with pytest.raises(UserError, match=r"rank 1, 2 of 3 did not join within 0 s \(engine.join_seconds\)"):
        rendezvous(place(0), 0.2)


def test_a_missing_rank_0_is_reported_with_its_address(place):
    with pytest.raises(UserError, match=r"rank 2 cannot reach rank 0 at 127.0.0.1:\d+"):
        rendezvous(place(2), 0.2)


def test_a_port_that_is_taken_is_named(place):
    kept = meet_alone(place(0))
    with pytest.raises(UserError, match=r"rank 0 cannot listen at 127.0.0.1:\d+.*MASTER_PORT"):
        rendezvous(place(0), 0.2)
    del kept


def meet_alone(ranks):
    return rendezvous(Ranks(master_port=ranks.master_port), 10)


@pytest.mark.processes
def test_a_training_whose_other_rank_never_starts_ends_with_a_message(tmp_path):
    options = [
        "experiment=smoke",
        "stage=auxiliary",
        "engine=deepspeed",
        "engine.device=cpu",
        "synthetic_images=16",
    ]
    paths = [f"data.path={tmp_path}/shards", f"run={tmp_path}/run", "engine.join_seconds=0.5"]
    finished = start("lediflow.train", *options, *paths, env=slurm_places(2)[0]).wait()
    assert finished.status == 2
    assert "rank 1 of 2 did not join" in finished.output
