"""Conditions that are computed before a solver starts: the same velocities, at the times that the solver asks for."""

import pytest
import torch
from harness.drawn_models import drawn_model

from lediflow.flow.solvers import JUMP, SOLVERS, evaluation_times, jump, solve
from lediflow.models import LatentSamplerSpec, LevelSpec, MappingSpec, VelocitySpec
from lediflow.sampling.known_times import at_known_times
from lediflow.sampling.runtime.conditions import Conditions
from lediflow.sampling.runtime.copies import WorkingCopy
from lediflow.sampling.runtime.networks import KINDS, ConditionedPart

LEVELS = [LevelSpec(depth=2, width=16, head_dim=8)]
SHARED = {"levels": LEVELS, "mapping": MappingSpec(depth=1, width=16)}
TIMES = [0.0, 0.25, 0.75]
FIXED = [name for name, solver in SOLVERS.items() if not solver.ignores_steps]


def velocity_spec(conditioning, **options):
    latent = {"latent_shape": [2, 4, 4], "conditioning": conditioning} if conditioning else {}
    return VelocitySpec(image_channels=3, patch_size=2, **SHARED, **latent, **options)


def inputs_of(kind, count=3):
    generator = torch.Generator().manual_seed(1)
    shape = (count, 2, 4, 4) if kind == "latent_velocity" else (count, 3, 8, 8)
    return torch.randn(shape, generator=generator), torch.randn(count, 2, 4, 4, generator=generator)


@pytest.mark.parametrize(
    ("kind", "spec"),
    [
        ("velocity", velocity_spec("vector")),
        ("velocity", velocity_spec("tokens")),
        ("velocity", velocity_spec("concat")),
        ("velocity", velocity_spec(None)),
        ("velocity", velocity_spec("vector", is_flow_map=True)),
        ("latent_velocity", LatentSamplerSpec(latent_channels=2, **SHARED)),
        ("latent_velocity", LatentSamplerSpec(latent_channels=2, is_flow_map=True, **SHARED)),
    ],
)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_velocity_at_prepared_conditions_is_that_of_the_model(kind, spec, precision):
    model, (x, z) = drawn_model(spec, std=0.15), inputs_of(kind)
    z = z if getattr(spec, "latent_shape", None) else None
    copied = WorkingCopy(model, precision)
    part, conditioned = KINDS[kind](model, precision == "bfloat16"), ConditionedPart(copied.module)
    known = Conditions(conditioned, copied).at(TIMES, z)
    pairs = [(t, s) for t in TIMES for s in TIMES if s > t] if spec.is_flow_map else [(t,) for t in TIMES]
    for times in pairs:
        with torch.no_grad():
            found = conditioned(x, *(known[time] for time in times), *(None,) * (2 - len(times)), z)
            expected = part(*part.inputs(x, [torch.tensor(time) for time in times], z))
        tolerance = {"rtol": 1e-4, "atol": 1e-5} if precision == "float32" else {"rtol": 0.05, "atol": 0.1}
        torch.testing.assert_close(found, expected, **tolerance)


@pytest.mark.parametrize("spec", [LatentSamplerSpec(latent_channels=2, **SHARED), velocity_spec(None)])
def test_conditions_without_z_are_kept_and_follow_the_weights_at_their_addresses(spec):
    model, other = (drawn_model(spec, seed, std=0.15) for seed in (0, 1))
    copied, fresh = (WorkingCopy(one, "float32") for one in (model, other))
    conditions = Conditions(ConditionedPart(copied.module), copied)
    before = conditions.at(TIMES, None)
    places = [row.data_ptr() for row in before.values()]
    model.load_state_dict(other.state_dict())
    copied.refresh()
    expected = Conditions(ConditionedPart(fresh.module), fresh).at(TIMES, None)
    after = conditions.at(TIMES, None)
    assert [row.data_ptr() for row in after.values()] == places
    for time in TIMES:
        torch.testing.assert_close(after[time], expected[time])


@pytest.mark.parametrize("solver", [*FIXED, JUMP])
@pytest.mark.parametrize("steps", [1, 3])
def test_a_solver_asks_for_the_times_that_are_prepared(solver, steps):
    asked = []

    class Network:
        def prepare(self, times, z):
            return dict.fromkeys(times, z)

        def at(self, x, times, known, z):
            assert all(time in known for time in times)
            asked.extend(times)
            return x

    network = Network()
    velocity = at_known_times(None, network, solver, steps)
    x = torch.ones(2, 3)
    found = (
        jump(velocity, x, steps=steps) if solver == JUMP else solve(velocity, x, solver=solver, steps=steps)
    )
    assert [*dict.fromkeys(asked)] == evaluation_times(solver, steps)
    plain = (lambda x, t, s: x) if solver == JUMP else (lambda x, t: x)
    expected = jump(plain, x, steps=steps) if solver == JUMP else solve(plain, x, solver=solver, steps=steps)
    assert torch.equal(found.x, expected.x) and found.nfe == expected.nfe


def test_without_known_times_or_a_network_that_prepares_the_velocity_stays_as_it_is():
    class Network:
        def prepare(self, times, z):
            pytest.fail("no times are known")

    def velocity(x, t):
        return x

    assert at_known_times(velocity, Network(), "dopri5", 4) is velocity
    assert at_known_times(velocity, velocity, "midpoint", 4) is velocity
