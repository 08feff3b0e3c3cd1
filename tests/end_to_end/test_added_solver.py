"""A solver is added by one entry of the table: `solve`, sampling and the grid of an evaluation know it."""

import json
import math

import pytest
import torch
from harness.commands import invoke, succeed

from lediflow.evaluation.results import read_results
from lediflow.flow.solvers import SOLVERS, solve
from lediflow.flow.solvers.adaptive import Adaptive
from lediflow.flow.solvers.tableaus import EmbeddedPair

# Bogacki & Shampine (1989): third order, with an embedded second-order method
BOSH3 = EmbeddedPair(
    name="bosh3",
    order=3,
    a=((), (1 / 2,), (0, 3 / 4), (2 / 9, 1 / 3, 4 / 9)),
    b=(2 / 9, 1 / 3, 4 / 9, 0),
    c=(0, 1 / 2, 3 / 4, 1),
    error=(2 / 9 - 7 / 24, 1 / 3 - 1 / 4, 4 / 9 - 1 / 3, -1 / 8),
)


@pytest.fixture
def added(monkeypatch):
    """The table with one entry more, which this file makes."""
    monkeypatch.setitem(SOLVERS, "bosh3", Adaptive(BOSH3))


def growth(x, t):
    """x' = cos(3 t) x, solved by x(t) = x(0) exp(sin(3 t) / 3)."""
    return torch.cos(3 * t).reshape(-1, 1) * x


def miss(tolerance):
    x = torch.tensor([[1.0], [-2.0]], dtype=torch.float64)
    found = solve(growth, x, solver="bosh3", rtol=tolerance, atol=tolerance)
    return (found.x - x * math.exp(math.sin(3) / 3)).abs().max().item(), int(found.accepted.max())


def test_it_keeps_its_tolerance_on_an_equation_with_a_closed_form(added):
    loose, tight = miss(1e-4), miss(1e-7)
    # ten times the tolerance, for errors that add up along the way
    assert loose[0] < 1e-3 and tight[0] < 1e-6
    # third order: a thousandth of the error takes ten times the steps
    assert tight[1] / loose[1] == pytest.approx(10, rel=0.3)


def test_sampling_and_evaluation_use_it_by_name(added, trained, tmp_path):
    runs = (f"run={trained.flow}", f"sampler={trained.sampler}", "device=cpu")
    succeed("sample", *runs, "solver=bosh3", "count=2", f"output={tmp_path}/ours")
    succeed("sample", *runs, "solver=dopri5", "count=2", f"output={tmp_path}/theirs")
    assert json.loads((tmp_path / "ours" / "samples.json").read_text())["solver"] == "bosh3"
    ours, theirs = ((tmp_path / name / "000000.png").read_bytes() for name in ("ours", "theirs"))
    assert ours and theirs

    succeed("evaluate", "mode=grid", *runs, f"data.path={trained.latents}", "count=4", "grid.solvers=[bosh3]",
            "grid.steps=[1,2]", f"paths.runs={tmp_path}", f"output={tmp_path}/grid")  # fmt: skip
    (row,) = read_results(tmp_path / "grid" / "results.json")["results"]["rows"]  # once: it ignores the steps
    assert row["solver"] == "bosh3"


def test_without_the_entry_the_name_is_refused_with_the_known_ones(trained, tmp_path):
    said = invoke("sample", f"run={trained.flow}", f"sampler={trained.sampler}", "solver=bosh3", "count=1",
                  f"output={tmp_path}/none")  # fmt: skip
    assert said.status and ", ".join(SOLVERS) in said.err
