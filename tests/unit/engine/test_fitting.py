"""The micro-batch is the largest half of a half ... of a rank's share that a GPU holds; the GPU here is played."""

import gc
import weakref
from contextlib import contextmanager

import pytest
import torch

from lediflow.engine import fitting
from lediflow.engine.fitting import fit_micro_batch, halves
from lediflow.errors import UserError

GPU, GIB = torch.device("cuda", 0), 2**30
SAMPLE_BYTES = 1_000


class PlayedGPU:
    """Holds `room` bytes; says what is tried on it."""

    def __init__(self, room: int) -> None:
        self.room, self.taken, self.tried, self.freed = room, 0, [], 0

    @contextmanager
    def held_aside(self, reserve_bytes, device):
        assert device == GPU
        self.take(reserve_bytes)
        try:
            yield
        finally:
            self.taken = 0

    def take(self, count):
        self.taken += count
        if self.taken > self.room:
            raise torch.OutOfMemoryError("played")

    def free(self, device):
        self.freed += 1

    def trial(self, samples):
        self.tried.append(samples)
        self.take(samples * SAMPLE_BYTES)


@pytest.fixture
def gpu_with(monkeypatch):
    def played(room):
        gpu = PlayedGPU(room)
        monkeypatch.setattr(fitting, "held_aside", gpu.held_aside)
        monkeypatch.setattr(fitting, "free", gpu.free)
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (room, 24 * GIB))
        return gpu

    return played


@pytest.mark.parametrize(("share", "expected"), [(96, [96, 48, 24, 12, 6, 3]), (1, [1]), (7, [7])])
def test_a_share_is_halved_as_long_as_it_stays_whole(share, expected):
    assert halves(share) == expected


@pytest.mark.parametrize(("room", "fitting"), [(64_000, 64), (63_999, 32), (16_000, 16), (1_000, 1)])
def test_the_largest_that_fits_beside_the_reserve_is_chosen(gpu_with, room, fitting):
    gpu = gpu_with(room + 500)
    assert fit_micro_batch(64, gpu.trial, 500, GPU) == fitting
    assert gpu.tried == [n for n in halves(64) if n >= fitting]
    assert gpu.freed == len(gpu.tried)  # after failures and after the success


def test_all_ranks_take_what_the_tightest_one_can(gpu_with):
    assert fit_micro_batch(64, gpu_with(70_000).trial, 0, GPU, agree=lambda mine: min(mine, 16)) == 16


def test_where_not_even_the_smallest_fits_the_ways_out_are_named(gpu_with):
    with pytest.raises(UserError, match=r"micro-batch of 3 does not fit.*activation_checkpointing=true"):
        fit_micro_batch(12, gpu_with(2_999).trial, 0, GPU)


def test_a_rank_whose_reserve_alone_is_too_large_tells_the_others_so(gpu_with):
    told = []
    with pytest.raises(UserError, match="does not fit"):
        fit_micro_batch(8, gpu_with(100).trial, 101, GPU, agree=lambda mine: told.append(mine) or mine)
    assert told == [0]  # it takes part in the agreement before it ends


def test_on_a_cpu_the_whole_share_is_taken_untried():
    assert fit_micro_batch(64, lambda samples: pytest.fail("tried"), 0, torch.device("cpu")) == 64


def test_errors_other_than_memory_are_not_taken_for_it(gpu_with):
    gpu_with(100)

    def trial(samples):
        raise RuntimeError("shapes")

    with pytest.raises(RuntimeError, match="shapes"):
        fit_micro_batch(8, trial, 0, GPU)


def test_nothing_of_a_failed_trial_is_left_when_memory_is_given_back(gpu_with, monkeypatch):
    gpu, left = gpu_with(10), []

    def trial(samples):
        activations = torch.zeros(samples)
        left.append(weakref.ref(activations))
        gpu.take(samples)

    def free(device):
        gc.collect()
        assert left[-1]() is None

    monkeypatch.setattr(fitting, "free", free)
    assert fit_micro_batch(16, trial, 0, GPU) == 8
