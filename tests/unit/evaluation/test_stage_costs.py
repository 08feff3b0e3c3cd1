"""What an image costs, by a clock that only the parts of a stand-in chain move on."""

from types import SimpleNamespace

import pytest
import torch

from lediflow.evaluation import cost
from lediflow.evaluation.cost import evaluations_per_image, stage_costs
from lediflow.flow.solvers import solve
from lediflow.sampling import SamplingConfig

CONFIG = SamplingConfig()


class Clock:
    """Seconds that pass when a part says so."""

    now = 0.0

    def perf_counter(self) -> float:
        return self.now


class TimedChain:
    """Every batch takes ms of each part from a list; the last entry holds from there on."""

    device = torch.device("cpu")

    def __init__(self, clock: Clock, *, is_learned: bool = True, **ms: list[float]):
        self.clock, self.ms = clock, ms
        self.auxiliary = "a learned prior" if is_learned else None

    def pass_time(self, part: str) -> None:
        left = self.ms.get(part, [0.0])
        self.clock.now += (left.pop(0) if len(left) > 1 else left[0]) / 1000

    def latents(self, ids, config):
        self.pass_time("latent_sampler")

    def start_from(self, ids, z, config):
        self.pass_time("prior_decoder")
        return ids

    def integrate(self, start, config):
        self.pass_time("flow")
        return SimpleNamespace(x=start)

    def decode(self, x):
        self.pass_time("codec")
        return x

    def is_recorded(self, config):
        return "graph" in self.ms

    def __call__(self, count, config):
        self.pass_time("graph")


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(cost, "time", clock)
    return clock


def test_evaluations_of_an_adaptive_solver_are_the_mean_over_images():
    """Image i moves along x' = i x: the steeper, the more steps it takes."""

    def evaluations_of(number, config):
        return solve(lambda x, t: number * x, torch.ones(1, 2), solver=config.solver, steps=config.steps).nfe

    adaptive, fixed = SamplingConfig(solver="dopri5"), SamplingConfig(solver="midpoint", steps=3)
    each = [evaluations_of(number, adaptive) for number in range(16)]
    assert each[0] < sum(each) / 16 < each[-1]
    found = evaluations_per_image(adaptive, lambda number: evaluations_of(number, adaptive))
    assert found == round(sum(each) / 16)
    assert evaluations_per_image(fixed, lambda number: evaluations_of(number, fixed)) == 6


def test_a_batch_is_shared_by_its_images(clock):
    chain = TimedChain(clock, latent_sampler=[8], prior_decoder=[4], flow=[40], codec=[16])
    found = stage_costs(chain, CONFIG, batch_size=4)
    one = {"latent_sampler": 8, "prior_decoder": 4, "flow": 40, "codec": 16, "total": 68}
    assert list(found) == ["batch_1", "batch_4"]
    assert found["batch_1"] == pytest.approx(one)
    assert found["batch_4"] == pytest.approx({part: ms / 4 for part, ms in one.items()})


def test_a_batch_of_one_is_not_measured_twice(clock):
    assert list(stage_costs(TimedChain(clock), CONFIG, batch_size=1)) == ["batch_1"]


def test_the_first_run_is_not_counted(clock):
    chain = TimedChain(clock, flow=[9000, 5])
    assert stage_costs(chain, CONFIG, batch_size=1)["batch_1"]["flow"] == pytest.approx(5)


def test_a_single_slow_repeat_changes_no_median(clock):
    chain = TimedChain(clock, flow=[1, 5, 700, 6])
    assert stage_costs(chain, CONFIG, batch_size=1)["batch_1"]["flow"] == pytest.approx(6)


def test_the_total_is_the_median_of_whole_runs_not_the_sum_of_medians(clock):
    """Runs of (100, 900), (900, 100) and (500, 2000) ms take 1000, 1000 and 2500; of the parts, 500 and 900 are."""
    chain = TimedChain(clock, flow=[0, 100, 900, 500], codec=[0, 900, 100, 2000])
    found = stage_costs(chain, CONFIG, batch_size=1)["batch_1"]
    assert (found["flow"], found["codec"], found["total"]) == pytest.approx((500, 900, 1000))


def test_the_total_of_a_chain_that_is_one_cuda_graph_is_that_of_the_graph(clock):
    """Its first two calls, which compile and record, are not counted."""
    chain = TimedChain(clock, flow=[40], codec=[16], graph=[5000, 900, 3, 5, 4])
    found = stage_costs(chain, CONFIG, batch_size=1)["batch_1"]
    assert (found["flow"], found["codec"], found["total"]) == pytest.approx((40, 16, 4))


@pytest.mark.parametrize(("ms", "runs"), [(10_000, 4), (120, 6), (1, 26)])
def test_short_chains_are_repeated_until_half_a_second_has_passed(clock, monkeypatch, ms, runs):
    """Between 3 and 25 times, after one that warms up."""
    calls = []
    monkeypatch.setattr(TimedChain, "decode", lambda self, x: calls.append(x) or x)
    stage_costs(TimedChain(clock, flow=[ms]), CONFIG, batch_size=1)
    assert len(calls) == runs


def test_a_gaussian_baseline_does_not_compute_latents(clock):
    chain = TimedChain(clock, is_learned=False, latent_sampler=[100], flow=[6], codec=[2])
    found = stage_costs(chain, CONFIG, batch_size=1)["batch_1"]
    assert found == pytest.approx(
        {"latent_sampler": 0, "prior_decoder": 0, "flow": 6, "codec": 2, "total": 8}
    )
