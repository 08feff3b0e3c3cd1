"""Densities that flows give, against flows between Gaussians whose densities are known."""

import math

import pytest
import torch
from torch.distributions import MultivariateNormal, Normal

from lediflow.flow.gaussians import gaussian_log_density, widen
from lediflow.flow.likelihood import bits_per_dimension, log_likelihood, rademacher
from lediflow.flow.noise import SampleNoise
from lediflow.flow.solvers import SOLVERS

DIM = 4
IDS = torch.arange(3)


def drawn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


A = 0.4 * drawn(DIM, DIM) - 0.3 * torch.eye(DIM, dtype=torch.float64)
SHIFT = drawn(DIM, seed=1)


def affine(x, t):
    """x' = A x + shift, whose flow over [0, 1] is x -> F x + G shift, with F = e^A."""
    return x @ A.T + SHIFT


def carried(mean, covariance):
    """N(mean, covariance), carried by `affine` from t = 0 to 1: from the exponential of the augmented matrix."""
    augmented = torch.zeros(DIM + 1, DIM + 1, dtype=torch.float64)
    augmented[:DIM, :DIM], augmented[:DIM, DIM] = A, SHIFT
    flow = torch.matrix_exp(augmented)
    turn, offset = flow[:DIM, :DIM], flow[:DIM, DIM]
    return MultivariateNormal(turn @ mean + offset, turn @ covariance @ turn.T)


def standard(x):
    return gaussian_log_density(x, torch.zeros_like(x), torch.zeros_like(x))


TIGHT = {"rtol": 1e-9, "atol": 1e-9}


@pytest.mark.parametrize("solver", [name for name in SOLVERS if name != "euler"])
def test_the_exact_trace_gives_a_gaussians_density(solver):
    y = drawn(3, DIM, seed=2)
    expected = carried(torch.zeros(DIM).double(), torch.eye(DIM).double()).log_prob(y)
    found = log_likelihood(affine, y, standard, trace="exact", solver=solver, steps=500, **TIGHT)
    tolerance = 1e-6 if solver in ("heun3", "rk4", "dopri5") else 1e-4  # second order at h = 1/500
    torch.testing.assert_close(found.nats, expected, atol=tolerance, rtol=0)


def test_a_learned_priors_own_density_is_where_the_flow_starts():
    """Every sample has a prior of its own, N(mu(z), sigma(z)^2)."""
    y, mean, logvar = drawn(3, 3, DIM, seed=3)
    expected = [
        carried(mu, s.exp().diag()).log_prob(sample) for sample, mu, s in zip(y, mean, logvar, strict=True)
    ]
    found = log_likelihood(affine, y, lambda x: gaussian_log_density(x, mean, logvar), trace="exact", **TIGHT)
    torch.testing.assert_close(found.nats, torch.stack(expected), atol=1e-6, rtol=0)


def test_a_widened_priors_density_is_that_of_the_sum_of_variances():
    """A flow from N(mu, sigma^2 + s^2): the start is that of independent noise of deviation s on top."""
    y, mean, logvar = drawn(3, 3, DIM, seed=3)
    expected = [
        carried(mu, (s.exp() + 0.3**2).diag()).log_prob(sample)
        for sample, mu, s in zip(y, mean, logvar, strict=True)
    ]
    wide = widen(logvar, 0.3)
    found = log_likelihood(affine, y, lambda x: gaussian_log_density(x, mean, wide), trace="exact", **TIGHT)
    torch.testing.assert_close(found.nats, torch.stack(expected), atol=1e-6, rtol=0)


def test_the_start_of_the_path_is_recovered():
    y = drawn(3, DIM, seed=2)
    found = log_likelihood(affine, y, standard, trace="exact", **TIGHT)
    augmented = torch.zeros(DIM + 1, DIM + 1, dtype=torch.float64)
    augmented[:DIM, :DIM], augmented[:DIM, DIM] = A, SHIFT
    back = torch.matrix_exp(-augmented)
    torch.testing.assert_close(found.x_0, y @ back[:DIM, :DIM].T + back[:DIM, DIM], atol=1e-7, rtol=0)


def bent(x, t):
    """A velocity that is not affine, of images."""
    return torch.tanh(x + x.roll(1, dims=-1)) * (1 + t.view(-1, 1, 1, 1))


def test_the_exact_trace_is_that_of_the_jacobian():
    """One Euler step backwards: the divergence at y is all there is to the integral."""
    y = drawn(2, 1, 2, 3, seed=4)
    found = log_likelihood(bent, y, lambda x: torch.zeros(2).double(), trace="exact", solver="euler", steps=1)
    for sample, nats in zip(y, found.nats, strict=True):
        jacobian = torch.func.jacrev(lambda x: bent(x[None], torch.ones(1))[0])(sample)
        torch.testing.assert_close(nats, -jacobian.reshape(6, 6).trace())


@pytest.mark.parametrize("kind", ["rademacher", "normal"])
def test_hutchinsons_trace_is_right_on_average(kind):
    y, count = drawn(3, 1, 2, 3, seed=4), 4000
    noise = SampleNoise(seed=5)
    probes = (
        rademacher(noise, IDS, (1, 2, 3), count=count)
        if kind == "rademacher"
        else noise.normal(IDS, "trace probes", (count, 1, 2, 3))
    )
    options = {"solver": "midpoint", "steps": 1}

    def nats(**how):
        return log_likelihood(bent, y, lambda x: torch.zeros(3).double(), **how, **options).nats

    exact = nats(trace="exact")
    singles = torch.stack([nats(probes=probes[:, k : k + 1]) for k in range(200)])
    standard_error = singles.std(dim=0) / count**0.5
    assert (singles.std(dim=0) > 0).all()  # an estimate, not the trace itself
    assert ((nats(probes=probes) - exact).abs() < 5 * standard_error).all()


def test_several_probes_are_averaged():
    y, probes = drawn(3, 1, 2, 3, seed=4), rademacher(SampleNoise(6), IDS, (1, 2, 3), count=3)

    def nats(probes):
        options = {"solver": "euler", "steps": 2}
        return log_likelihood(bent, y, lambda x: torch.zeros(3).double(), probes=probes, **options).nats

    mean = sum(nats(probes[:, k : k + 1]) for k in range(3)) / 3
    torch.testing.assert_close(nats(probes), mean)


def test_rademacher_probes_are_exact_for_a_diagonal_jacobian():
    y = drawn(3, DIM, seed=2)
    probes = rademacher(SampleNoise(0), IDS, (DIM,))
    assert set(probes.unique().tolist()) == {-1.0, 1.0}

    def scaling(x, t):
        return x * SHIFT

    exact = log_likelihood(scaling, y, standard, trace="exact").nats
    torch.testing.assert_close(log_likelihood(scaling, y, standard, probes=probes).nats, exact)


@pytest.mark.parametrize("context", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_a_velocity_that_does_not_depend_on_x_moves_the_density_as_it_is(context):
    y, shift = drawn(3, DIM, seed=2), SHIFT.clone().requires_grad_()
    constant = context()(lambda x, t: shift.expand_as(x))
    found = log_likelihood(constant, y, standard, trace="exact", solver="euler")
    torch.testing.assert_close(found.nats, standard(y - SHIFT))


def test_frozen_models_and_no_grad_are_supported():
    y, layer = drawn(3, DIM, seed=2), torch.nn.Linear(DIM, DIM).double().requires_grad_(False)
    with torch.no_grad():
        found = log_likelihood(lambda x, t: layer(x), y, standard, trace="exact", **TIGHT)
    assert not found.nats.requires_grad
    gained = standard(found.x_0) - found.nats
    torch.testing.assert_close(gained, layer.weight.trace().expand(3), atol=1e-6, rtol=0)


@pytest.mark.parametrize("trace", ["exact", "hutchinson"])
def test_inference_mode_is_supported(trace):
    """Its tensors take part in no gradient, neither y nor the probes."""
    how = {"trace": trace, **TIGHT}

    def nats():
        probes = rademacher(SampleNoise(0), IDS, (DIM,), count=2) if trace == "hutchinson" else None
        return log_likelihood(affine, drawn(3, DIM, seed=2), standard, probes=probes, **how).nats

    with torch.inference_mode():
        found = nats()
    torch.testing.assert_close(found, nats(), rtol=0, atol=0)


@pytest.mark.parametrize(
    "unrecorded",
    [
        torch.no_grad()(affine),
        torch.inference_mode()(affine),
        lambda x, t: affine(x.detach(), t),
        lambda x, t: affine(x.detach(), t) * torch.ones(DIM).double().requires_grad_(),
        torch.no_grad()(lambda x, t: x * (1 - t[:, None])),  # nothing at the start, t = 1
    ],
    ids=["no_grad", "inference_mode", "detach", "detach before parameters", "later only"],
)
def test_a_velocity_that_hides_its_gradient_is_refused(unrecorded):
    with pytest.raises(ValueError, match=r"depends on x, but autograd recorded nothing.*remove no_grad"):
        log_likelihood(unrecorded, drawn(3, DIM, seed=2), standard, trace="exact")


def test_a_velocity_that_is_x_itself_has_the_dimension_as_its_divergence():
    found = log_likelihood(lambda x, t: x, drawn(3, DIM, seed=2), standard, trace="exact", **TIGHT)
    torch.testing.assert_close(
        standard(found.x_0) - found.nats, torch.full((3,), DIM).double(), atol=1e-6, rtol=0
    )


def test_nfe_is_the_solvers_and_counts_no_probe():
    y = drawn(3, DIM, seed=2)
    assert log_likelihood(affine, y, standard, trace="exact", solver="heun3", steps=5).nfe == 15


def test_equally_likely_bytes_cost_eight_bits():
    """Images with noise between their bytes fill 256 gaps of 1/127.5, each with the same density."""
    dimensions = 12
    nats = torch.tensor([dimensions * math.log(127.5 / 256)], dtype=torch.float64)
    assert bits_per_dimension(nats, dimensions).item() == pytest.approx(8)


def test_gaussian_log_density_is_torchs():
    x, mean, logvar = drawn(3, 2, 3, 4, seed=7)
    expected = Normal(mean, (0.5 * logvar).exp()).log_prob(x).sum(dim=(1, 2))
    torch.testing.assert_close(gaussian_log_density(x, mean, logvar), expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"trace": "guess"}, "trace 'guess' is unknown; use 'hutchinson' or 'exact'"),
        ({}, r"needs probes of shape \(batch, probes, \*dims\).*found none; .*trace='exact'"),
        ({"probes": torch.ones(3, DIM)}, r"for y of \(3, 4\), found shape \(3, 4\)"),
        ({"probes": torch.ones(3, 0, DIM)}, r"found shape \(3, 0, 4\)"),
    ],
)
def test_an_unknown_kind_of_trace_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        log_likelihood(affine, drawn(3, DIM), standard, **options)
