"""A metric is one entry of the table: results, terminal, table.md, report, event log and comparison then have it."""

import pytest
from harness.commands import succeed
from harness.small_features import small_features

from lediflow.evaluation.metrics import METRICS, Influence, Metric, Sets, Values, logged_keys
from lediflow.evaluation.results import read_results
from lediflow.report.collect import measurement
from lediflow.report.content import ReportData
from lediflow.report.quality import columns_of

COUNT = 12


def level(sets: Sets) -> Values:
    """Difference of the mean features of generated and real images; a mean of independent images."""
    made, real = (rows.values.double().mean(dim=1) for rows in (sets.made, sets.real))
    value = (made.mean() - real.mean()).item()
    return Values({"level": value}, Influence(value, made - made.mean(), real.mean() - real))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("added")


@pytest.fixture
def added(monkeypatch):
    """The table with one entry more, which this file makes."""
    metric = Metric(key="level", name="feature level", direction="higher", digits=4, compute=level)
    monkeypatch.setitem(METRICS, "level", metric)


def evaluate(trained, root, name, *runs):
    said = succeed("evaluate", *runs, f"data.path={trained.latents}", f"paths.runs={root}", f"count={COUNT}",
                   "device=cpu", "step_counts=[1]", "timed_batch=1", f"output={root}/{name}",
                   *small_features(root))  # fmt: skip
    (row,) = read_results(root / name / "results.json")["results"]["rows"]
    return said, row


def test_every_view_has_the_added_metric(added, trained, root):
    said, ours = evaluate(trained, root, "ours", f"run={trained.flow}", f"sampler={trained.sampler}")
    _, theirs = evaluate(trained, root, "baseline", f"run={trained.baseline}")
    assert isinstance(ours["level"], float)
    assert f"feature level {ours['level']:.3f}" in said.out

    heading, _, line = (root / "ours" / "table.md").read_text().split("\n\n")[-1].splitlines()
    place = heading.split(" | ").index("feature level")
    assert line.split(" | ")[place] == f"{ours['level']:.3g}"

    column = columns_of(ReportData(title="", lead=""))[-1]
    assert column.title == "feature level" and column.best is max
    assert column.number(measurement("LeDiFlow", ours)) == ours["level"]

    assert logged_keys()[-1] == "level"  # what an event of the log keeps, and so W&B

    said = succeed(
        "evaluate", "mode=compare", f"results=[{root}/ours,{root}/baseline]", f"output={root}/both"
    )
    (row,) = read_results(root / "both" / "results.json")["results"]["rows"]
    found = row["metrics"]["level"]
    assert found["difference"] == pytest.approx(ours["level"] - theirs["level"])
    low, high = found["interval"]
    # higher is better, unlike for the MMD
    assert found["verdict"] == ("better" if low > 0 else "worse" if high < 0 else "undecided")
    assert f"feature level {ours['level']:.5f} against" in said.out


def test_rows_without_the_added_metric_are_measured_again(trained, root, request):
    runs = (f"run={trained.flow}", f"sampler={trained.sampler}")
    _, before = evaluate(trained, root, "grown", *runs)
    request.getfixturevalue("added")
    _, after = evaluate(trained, root, "grown", *runs)
    assert "level" not in before and "level" in after
    assert {key: after[key] for key in ("mmd", "frechet", "precision")} == {
        key: before[key] for key in ("mmd", "frechet", "precision")
    }
