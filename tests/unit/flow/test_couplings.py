"""Optimal transport against scipy's assignment and torchcfm's plan."""

import sys

import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torchcfm.optimal_transport import OTPlanSampler

from lediflow.flow.couplings import COUPLINGS, independent, minibatch_optimal_transport, optimal_partners


def images(batch=17, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, batch, 3, 4, 4, generator=generator)


def squared_distance(x_0, x_1):
    return (x_0 - x_1).double().square().sum().item()


def test_the_permutation_is_the_best_assignment():
    x_0, x_1 = images()
    cost = (x_0[:, None] - x_1).double().square().flatten(2).sum(2)
    rows, columns = linear_sum_assignment(cost.numpy())
    assert optimal_partners(x_0, x_1)[columns].tolist() == rows.tolist()


@pytest.mark.parametrize("batch", [2, 17, 64])
def test_the_cost_is_that_of_torchcfms_plan(batch):
    x_0, x_1 = images(batch)
    plan = torch.from_numpy(OTPlanSampler("exact").get_map(x_0, x_1))
    expected = (plan * torch.cdist(x_0.flatten(1), x_1.flatten(1)).square()).sum() * batch
    found = minibatch_optimal_transport(x_0, x_1)
    assert squared_distance(found, x_1) == pytest.approx(expected.item(), rel=1e-5)  # its cost is float32's
    assert squared_distance(found, x_1) < squared_distance(x_0, x_1)


def test_every_draw_is_used_once_even_if_all_pairs_cost_the_same():
    x_0, x_1 = torch.zeros(2, 9, 5)
    assert sorted(optimal_partners(x_0, x_1).tolist()) == list(range(9))


def test_an_empty_batch_has_an_empty_permutation():
    assert optimal_partners(*torch.zeros(2, 0, 3)).shape == (0,)
    assert minibatch_optimal_transport(*torch.zeros(2, 0, 3)).shape == (0, 3)


def test_a_shuffled_batch_is_put_in_order():
    x_1 = images()[1]
    order = torch.randperm(17, generator=torch.Generator().manual_seed(1))
    near = x_1[order] + 1e-3
    assert torch.equal(minibatch_optimal_transport(near, x_1), near[order.argsort()])


def test_independent_pairs_stay_as_they_were_drawn():
    x_0, x_1 = images()
    assert independent(x_0, x_1) is x_0
    assert list(COUPLINGS) == ["independent", "optimal_transport"]


def test_shapes_that_differ_are_refused():
    with pytest.raises(ValueError, match=r"x_0 is \(17, 3, 4, 4\) and x_1 \(16, 3, 4, 4\)"):
        optimal_partners(images()[0], images()[1][:16])


def test_nonfinite_values_are_refused():
    x_0, x_1 = images()
    x_0[3, 0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match="not finite"):
        optimal_partners(x_0, x_1)


def test_a_missing_solver_is_named_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "ot", None)
    with pytest.raises(ImportError, match="pip install POT"):
        minibatch_optimal_transport(*images())
