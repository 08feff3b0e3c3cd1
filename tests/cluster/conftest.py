"""The cluster that all tests of this folder share: started for the first of them, ended after the last."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.cluster import Cluster
from harness.cluster_start import is_root_on_debian, missing_slurm, running_cluster
from harness.patience import share_of_core

from lediflow.data.synthetic import make_synthetic_shards

HERE = Path(__file__).parent
# The order in which workers of pytest-xdist take files. A worker with two tests left takes its next file, so the files
# of one or two long tests, with which four workers begin, are followed by a short file each.
ORDER = (
    "test_faults", "test_unnoticed_losses", "test_pipeline_jobs", "test_time_limits",
    "test_plain_scripts", "test_testcluster", "test_hydra_launchers", "test_submitted_runs", "test_status",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.cluster)
    items.sort(key=lambda item: (*ORDER, item.path.stem).index(item.path.stem))


@pytest.fixture(scope="session")
def slurm_is_here() -> None:
    """Skip where SLURM cannot be installed; fail where it could be and is not."""
    if reason := missing_slurm():
        if is_root_on_debian():
            pytest.fail(
                f"{reason}; `make test-cluster` or `slurm/testcluster/cluster.sh install` installs it"
            )
        pytest.skip(f"{reason}, and only root on Debian or Ubuntu can install it")


@pytest.fixture(scope="session")
def cluster(slurm_is_here: None) -> Iterator[Cluster]:
    """Four nodes with four GPUs each: partitions main, low and hard (preempted with and without a warning), high.

    On a busy machine healthy nodes answer late: SLURM waits longer before it takes a silent node for lost.
    """
    with running_cluster(node_timeout_s=round(5 / max(1 / 3, share_of_core(0.5)))) as started:
        yield started


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of runs, with images to train on: those that experiment=smoke would draw."""
    folder = tmp_path_factory.mktemp("runs")
    make_synthetic_shards(folder / "shards", 96, 16, 1)
    return folder


@pytest.fixture(autouse=True)
def cluster_in_order(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every test starts with an empty queue and idle nodes."""
    yield
    if "cluster" in request.fixturenames:
        request.getfixturevalue("cluster").heal()
