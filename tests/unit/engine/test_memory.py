"""Memory by ZeRO stage, against real tensors and the ZeRO paper's example; the largest micro-batch that fits.

The GPU is simulated.
"""

import gc
import weakref
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from torch import nn

from lediflow.engine.memory import (
    BUCKET_ELEMENTS,
    GIB,
    DeviceMemory,
    fit_host,
    fit_micro_batch,
    halves,
    held,
    reserved_bytes,
    saved_bytes,
)
from lediflow.engine.protocol import EngineConfig
from lediflow.errors import UserError

MANY = 7_500_000_000  # the paper's model
PLAIN = EngineConfig(name="local", precision="float32")
BFLOAT16 = replace(PLAIN, precision="bfloat16")


def zero(stage, offload="none"):
    return EngineConfig(name="deepspeed", precision="bfloat16", zero=stage, offload=offload)


def bytes_of(tensors):
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def test_the_memory_of_plain_training_is_that_of_torch():
    module = nn.Sequential(nn.Linear(7, 11), nn.Linear(11, 3))
    optimizer = torch.optim.AdamW(module.parameters())
    module(torch.zeros(2, 7)).sum().backward()
    optimizer.step()
    weights = list(module.parameters())
    moments = [state[name] for state in optimizer.state.values() for name in ("exp_avg", "exp_avg_sq")]
    found = held(sum(map(torch.numel, weights)), PLAIN, 1, averages=1)
    assert found.weights == bytes_of(weights)
    assert found.gradients == bytes_of(weight.grad for weight in weights)
    assert found.optimizer == bytes_of(moments)
    assert found.averages == bytes_of(weights)  # one copy
    assert found.peak == found.standing == bytes_of([*weights * 3, *moments])


@pytest.mark.parametrize(
    ("stage", "gigabytes"), [(0, 120.0), (1, 31.4), (2, 16.6), (3, 1.9)], ids=lambda value: str(value)
)
def test_the_state_has_the_size_of_the_zero_paper(stage, gigabytes):
    """Figure 1 of arXiv:1910.02054: 7.5 billion parameters on 64 GPUs, K = 12, without averages."""
    config = zero(stage) if stage else PLAIN  # its stage 0 has 2 + 2 + 12 bytes, ours 4 + 4 + 8
    assert held(MANY, config, 64, averages=0).standing / 1e9 == pytest.approx(gigabytes, abs=0.05)


def test_every_further_average_costs_four_bytes_a_weight():
    one, three = (held(1_000, BFLOAT16, 1, averages=count) for count in (1, 3))
    assert three.averages - one.averages == three.peak - one.peak == 2 * 4 * 1_000


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_offloaded_state_leaves_the_gpu_and_is_found_on_the_host(stage):
    here, away = (held(1_000, zero(stage, offload), 4, averages=2) for offload in ("none", "cpu"))
    assert away.optimizer == away.averages == 0
    assert away.host - here.host == here.optimizer + here.averages + 4 * 250  # and float32 gradients


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_more_gpus_never_hold_more_each(stage):
    peaks = [held(1_000_003, zero(stage), ranks).peak for ranks in (1, 2, 3, 8, 64)]
    assert peaks == sorted(peaks, reverse=True)


def test_peak_memory_does_not_add_activations_and_the_optimizers_copy():
    alone = held(1_000, zero(1), 1)
    beside = held(1_000, zero(1), 1, activations=500)
    assert alone.peak == alone.standing + 4 * 1_000  # float32 gradients; the bucket is smaller
    assert beside.peak == beside.standing + max(beside.buffers + 500, 4 * 1_000)


def test_buckets_are_not_larger_than_the_gradients():
    assert held(1_000, zero(2), 1).buffers == 2 * 1_000
    assert held(10**9, zero(2), 1).buffers == 2 * BUCKET_ELEMENTS


def test_a_frozen_parent_is_complete_on_every_rank():
    with_parent, without = (held(1_000, zero(3), 8, frozen=count) for count in (100, 0))
    assert with_parent.weights - without.weights == 4 * 100


def test_the_reserve_and_the_plain_model_make_up_the_engines_memory():
    engine = held(1_000, zero(1), 1, averages=3)
    assert reserved_bytes(1_000, engine) + (4 + 4) * 1_000 == engine.standing + engine.buffers
    assert reserved_bytes(1_000, held(1_000, zero(3), 1_000)) == 0  # never less than nothing


def test_a_checkpoint_holds_weights_moments_and_averages_once_for_any_number_of_ranks():
    assert saved_bytes(1_000, averages=3) == 4 * 1_000 * (1 + 2 + 3)


def test_best_weights_are_held_in_host_memory_and_once_more_during_a_save():
    for stage in (0, 2):
        best, last = (held(1_000, zero(stage), 4, keeps_best=keeps) for keeps in (True, False))
        assert best.standing == last.standing
        assert best.host - last.host == 4 * (1_000 if stage == 0 else 250) + 4 * 250


SAMPLE_BYTES = 1_000


class SimulatedGpu(DeviceMemory):
    """Holds `total` bytes, remembers what was tried on it, and keeps no margin."""

    total = 0

    def __init__(self, total: int) -> None:
        super().__init__(torch.device("cuda", 0))
        self.total, self.taken, self.tried, self.freed = total, 0, [], 0

    @contextmanager
    def held_aside(self, reserve_bytes):
        self.take(reserve_bytes)
        try:
            yield
        finally:
            self.taken = 0

    def take(self, count):
        self.taken += count
        if self.taken > self.total:
            raise torch.OutOfMemoryError("simulated")

    def free(self):
        self.freed += 1

    def trial(self, samples):
        self.tried.append(samples)
        self.take(samples * SAMPLE_BYTES)


@pytest.mark.parametrize(("share", "expected"), [(96, [96, 48, 24, 12, 6, 3]), (1, [1]), (7, [7])])
def test_a_share_is_halved_while_it_is_even(share, expected):
    assert halves(share) == expected


@pytest.mark.parametrize(("room", "fitting"), [(64_000, 64), (63_999, 32), (16_000, 16), (1_000, 1)])
def test_the_largest_that_fits_with_the_reserve_is_chosen(room, fitting):
    gpu = SimulatedGpu(room + 500)
    assert fit_micro_batch(64, gpu.trial, 500, gpu) == fitting
    assert gpu.tried == [n for n in halves(64) if n >= fitting]
    assert gpu.freed == len(gpu.tried)  # after failures and after the success


def test_all_ranks_use_the_micro_batch_that_fits_on_every_rank():
    gpu = SimulatedGpu(70_000)
    assert fit_micro_batch(64, gpu.trial, 0, gpu, agree=lambda mine: min(mine, 16)) == 16


def test_if_not_even_the_smallest_fits_remedies_are_named():
    gpu = SimulatedGpu(2_999)
    with pytest.raises(
        UserError, match=r"micro-batch of 3 does not fit cuda:0.*activation_checkpointing=true"
    ):
        fit_micro_batch(12, gpu.trial, 0, gpu)


def test_a_rank_whose_reserve_alone_does_not_fit_reports_it_to_the_others():
    gpu, proposals = SimulatedGpu(100), []
    with pytest.raises(UserError, match="does not fit"):
        fit_micro_batch(8, gpu.trial, 101, gpu, agree=lambda mine: proposals.append(mine) or mine)
    assert proposals == [0]  # it takes part in the agreement before it ends


def test_a_limit_of_the_process_counts_as_the_size_of_the_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_per_process_memory_fraction", lambda device: 0.25)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (50, 80 * GIB))
    assert str(DeviceMemory(torch.device("cuda", 1))) == "cuda:1 of 20.0 GiB"


@pytest.mark.parametrize(("free", "fitting"), [(85_400, 64), (85_200, 32), (1_400, 1)])
def test_on_a_cpu_activations_take_at_most_three_quarters_of_the_free_memory(free, fitting):
    assert fit_host(64, SAMPLE_BYTES, free) == fitting


def test_a_batch_that_cannot_be_split_to_fit_a_cpu_is_refused_on_every_rank():
    proposals = []
    with pytest.raises(UserError, match=r"of 3 samples would take about 3.0 GiB, and 2.0 GiB of memory"):
        fit_host(12, GIB, 2 * GIB, agree=lambda mine: proposals.append(mine) or mine)
    assert proposals == [0]


def test_errors_other_than_out_of_memory_are_raised():
    def trial(samples):
        raise RuntimeError("shapes")

    with pytest.raises(RuntimeError, match="shapes"):
        fit_micro_batch(8, trial, 0, SimulatedGpu(100))


def test_a_failed_trial_frees_all_its_memory():
    left = []

    class Watching(SimulatedGpu):
        def free(self):
            gc.collect()
            assert left[-1]() is None

    gpu = Watching(10)

    def trial(samples):
        activations = torch.zeros(samples)
        left.append(weakref.ref(activations))
        gpu.take(samples)

    assert fit_micro_batch(16, trial, 0, gpu) == 8
