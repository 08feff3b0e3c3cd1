"""docs/solvers.md: its examples run, in the order of the page, and its table is the tableaus'."""

import re
from pathlib import Path

import torch

from lediflow.flow.solvers import SOLVERS
from lediflow.flow.solvers.fixed import FixedStep
from lediflow.flow.solvers.tableaus import DOPRI5

PAGE = (Path(__file__).parents[3] / "docs" / "solvers.md").read_text()
ROW = re.compile(r"^\| (`.+?) \| (\d)[^|]* \| (\d)", re.MULTILINE)


def test_the_examples_run():
    torch.manual_seed(0)
    found: dict = {}
    for code in re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE):
        exec(code, found)
    torch.testing.assert_close(found["solution"].x, found["x_0"] / torch.e, atol=1e-5, rtol=0)  # x' = -x
    assert found["bits"].isfinite().all()


def test_the_table_of_solvers_is_theirs():
    listed = {
        name: (int(order), int(calls))
        for names, order, calls in ROW.findall(PAGE)
        for name in re.findall(r"`(\w+)`", names)
    }
    fixed = {name: solver.tableau for name, solver in SOLVERS.items() if isinstance(solver, FixedStep)}
    expected = {name: (tableau.order, tableau.stages) for name, tableau in fixed.items()}
    assert listed == expected | {"dopri5": (DOPRI5.order, DOPRI5.stages - 1)}
    assert list(listed) == list(SOLVERS)
