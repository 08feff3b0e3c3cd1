"""Dopri5: each sample of a batch has its own steps, and nothing of its companions'."""

import math

import pytest
import torch

from lediflow.flow.solvers import solve

RATES = torch.tensor([0.1, 1.0, 30.0], dtype=torch.float64)  # calm to quick


def oscillation(x, t, rates=RATES):
    """Sample i turns at rate i; solved by a rotation through rate * t."""
    return rates[:, None] * torch.stack((-x[:, 1], x[:, 0]), dim=1)


def starts():
    return torch.tensor([[1.0, 0.0]], dtype=torch.float64).repeat(3, 1)


def turned(angle):
    return torch.stack((angle.cos(), angle.sin()), dim=1)


@pytest.mark.parametrize("t1", [1.0, -1.0], ids=["forwards", "backwards"])
def test_every_sample_keeps_the_tolerance(t1):
    found = solve(oscillation, starts(), solver="dopri5", t1=t1, rtol=1e-8, atol=1e-8)
    error = (found.x - turned(RATES * t1)).norm(dim=1)
    assert (error < 1e-8 * found.accepted).all()  # each step adds at most about its tolerance


def test_a_sample_with_a_fast_velocity_takes_more_steps():
    accepted = solve(oscillation, starts(), solver="dopri5").accepted
    assert accepted[0] < accepted[1] < accepted[2]


SWITCHED_ON = torch.tensor([0.15, 0.6, 2.0], dtype=torch.float64)  # the last one never, within [0, 1]


def switched(x, t, rows=slice(None)):
    """Each sample's velocity jumps at a time of its own, which costs it rejected steps."""
    return oscillation(x, t, RATES[rows]) + (t > SWITCHED_ON[rows])[:, None]


@pytest.mark.parametrize("sample", range(3))
def test_the_result_of_a_sample_does_not_depend_on_its_batch(sample):
    tolerances = {"rtol": 1e-4, "atol": 1e-4}
    together = solve(switched, starts(), solver="dopri5", **tolerances)
    row = slice(sample, sample + 1)
    alone = solve(lambda x, t: switched(x, t, row), starts()[row], solver="dopri5", **tolerances)
    assert torch.equal(together.x[row], alone.x)
    assert torch.equal(together.accepted[row], alone.accepted)
    assert torch.equal(together.rejected[row], alone.rejected)
    assert len(together.rejected.unique()) > 1


def test_a_short_part_of_the_grid_does_not_make_the_next_steps_short():
    plain, split = ([0.0, 0.5, 1.0], [0.0, 0.5, 0.5 + 1e-9, 1.0])
    accepted = [
        solve(oscillation, starts(), solver="dopri5", times=times).accepted for times in (plain, split)
    ]
    assert torch.equal(accepted[1], accepted[0] + 1)


def test_samples_that_reached_the_end_do_not_change():
    seen = []
    solve(oscillation, starts(), solver="dopri5", on_step=lambda t, x: seen.append((t[0], x[0])))
    arrived = [x for t, x in seen if t == 1.0]
    assert len(arrived) > 1 and all(torch.equal(x, arrived[0]) for x in arrived)


def test_calls_are_six_per_step_plus_two_at_the_start_plus_four_to_check_times():
    """The slowest sample decides how many rounds there are; the last slope of a step is the next one's first."""
    solution = solve(oscillation, starts(), solver="dopri5")
    assert solution.nfe == 6 + 6 * (solution.accepted + solution.rejected).max()
    alone = solve(lambda x, t: oscillation(x, t, RATES[2:]), starts()[2:], solver="dopri5")
    assert alone.nfe == 2 + 6 * (alone.accepted + alone.rejected).max()


def test_a_step_that_is_too_long_is_repeated_shorter():
    def switched_on(x, t):
        return (t > 0.37)[:, None].to(x.dtype)

    solution = solve(switched_on, torch.zeros(1, 1, dtype=torch.float64), solver="dopri5")
    assert solution.rejected.item() > 0
    assert solution.x.item() == pytest.approx(0.63, abs=1e-4)


def test_a_vector_without_a_batch_axis_is_one_system():
    """Its entries depend on each other, so they must not walk apart."""

    def turn(x, t):
        assert t.shape == ()
        return 30 * torch.stack((-x[1], x[0]))

    solution = solve(turn, starts()[0], solver="dopri5")
    batched = solve(lambda x, t: oscillation(x, t, RATES[2:]), starts()[:1], solver="dopri5")
    assert torch.equal(solution.x, batched.x[0])
    assert solution.accepted.shape == () and solution.accepted == batched.accepted[0]


def test_a_number_can_be_integrated():
    solution = solve(
        lambda x, t: x, torch.tensor(1.0, dtype=torch.float64), solver="dopri5", rtol=1e-9, atol=1e-9
    )
    assert solution.x.item() == pytest.approx(torch.e, abs=1e-7)


def test_float32_reaches_what_float32_can():
    """The tolerance is below float32's rounding near 1, yet the end is reached and is right to rounding."""
    found = solve(
        lambda x, t: oscillation(x, t, RATES.float()), starts().float(), solver="dopri5", rtol=1e-6, atol=1e-6
    )
    assert found.x.dtype == torch.float32
    torch.testing.assert_close(found.x, turned(RATES).float(), atol=1e-4, rtol=0)


def test_too_many_steps_are_refused_with_the_sample_and_its_time():
    with pytest.raises(
        ValueError, match=r"sample 1 of 3 at t = 0\.\d+ after max_steps = 5 steps \(rtol 1e-09"
    ):
        solve(oscillation, starts(), solver="dopri5", rtol=1e-9, atol=1e-9, max_steps=5)


def test_a_velocity_that_is_not_finite_at_the_start_is_named_with_its_sample():
    def broken(x, t):
        return torch.where(torch.arange(3)[:, None] == 1, torch.nan, x)

    with pytest.raises(ValueError, match=r"sample 1 of 3 at t = 0: .*not finite at the start"):
        solve(broken, starts(), solver="dopri5")


def test_a_velocity_that_stops_being_finite_is_named_with_its_time():
    def broken(x, t):
        return torch.where(t[:, None] > 0.5, torch.nan, x)

    with pytest.raises(
        ValueError, match=r"sample 0 of 3 at t = 0\.(4999|5).*check that the velocity is finite"
    ):
        solve(broken, starts(), solver="dopri5")


def test_gradients_flow_through_the_steps():
    x = starts().requires_grad_()
    solve(oscillation, x, solver="dopri5").x[:, 0].sum().backward()
    torch.testing.assert_close(x.grad, turned(-RATES), atol=1e-3, rtol=0)  # a rotation's gradient turns back


def last_sample_alone(x, t):
    return x * t.cos() * (torch.arange(len(x)) == len(x) - 1).view(-1, *[1] * (x.ndim - 1))


def one_entry_alone(x, t):
    return last_sample_alone(x, t) * (torch.arange(x.shape[-1]) == 0)


ONE_TIME_FOR_ALL = {  # the times meet the last axis; with the factor by which x grows from 0 to 1
    "cos t": (lambda x, t: x * t.cos(), math.exp(math.sin(1))),
    "nothing at the start": (lambda x, t: x * t, math.exp(0.5)),
    "a period of the interval": (lambda x, t: x * 3 * torch.cos(2 * math.pi * t), 1.0),
    "nothing at both ends": (lambda x, t: x * t * (1 - t), math.exp(1 / 6)),
    "one sample": (last_sample_alone, None),
    "one entry": (one_entry_alone, None),
}


@pytest.mark.parametrize("shape", [(2, 2), (3, 3), (8, 1, 8, 8)], ids=str)
@pytest.mark.parametrize("case", ONE_TIME_FOR_ALL)
@pytest.mark.parametrize("is_first_zero", [False, True])
def test_a_velocity_that_needs_one_time_for_all_samples_gets_one(case, shape, is_first_zero):
    """As many samples as entries along the last axis: times of shape (batch,) would be taken for those of columns."""
    velocity, growth = ONE_TIME_FOR_ALL[case]
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    if is_first_zero:
        x[0] = 0
    found = solve(velocity, x, solver="dopri5", rtol=1e-9, atol=1e-9)
    expected = solve(velocity, x, solver="rk4", steps=200).x if growth is None else x * growth
    torch.testing.assert_close(found.x, expected, rtol=1e-7, atol=1e-9)
    assert found.accepted.shape == ()


@pytest.mark.parametrize(
    "velocity",
    [
        lambda x, t: x * torch.full((len(x),), t, dtype=x.dtype)[:, None],  # TypeError
        lambda x, t: (f"{t:.2f}", x * t)[1],  # TypeError
        lambda x, t: x * float(t),  # RuntimeError
    ],
    ids=["full", "format", "float"],
)
def test_a_velocity_that_fails_with_times_per_sample_gets_one_time(velocity):
    found = solve(velocity, starts(), solver="dopri5", rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found.x, starts() * math.exp(0.5), rtol=1e-7, atol=0)


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("on the GPU"), RuntimeError("DefaultCPUAllocator: can't allocate memory")],
)
def test_running_out_of_memory_is_raised_and_not_taken_for_refused_times(error):
    def hungry(x, t):
        if t.ndim:
            raise error
        return x

    with pytest.raises(type(error), match=str(error)):
        solve(hungry, starts(), solver="dopri5")


def test_the_sample_with_the_largest_error_determines_shared_steps():
    rates = torch.tensor([[0.1], [30.0]], dtype=torch.float64)

    def velocity(x, t):
        return (rates * t).cos() * x  # the quick sample needs many steps

    x = torch.ones(2, 1, dtype=torch.float64)
    together = solve(velocity, x, solver="dopri5", rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(together.x, (rates.sin() / rates).exp(), rtol=1e-7, atol=0)
