"""The cluster that all tests of this folder share. It starts with the first of them and ends with the last."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.cluster import Cluster
from harness.cluster_start import is_root_on_debian, missing_slurm, running_cluster
from harness.commands import succeed

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.cluster)


@pytest.fixture(scope="session")
def slurm_is_here() -> None:
    """Where SLURM cannot be had the lane says so; where it could be installed, it must be."""
    if reason := missing_slurm():
        if is_root_on_debian():
            pytest.fail(
                f"{reason}; `make test-cluster` or `slurm/testcluster/cluster.sh install` installs it"
            )
        pytest.skip(f"{reason}, and only root on Debian or Ubuntu can install it")


@pytest.fixture(scope="session")
def cluster(slurm_is_here: None) -> Iterator[Cluster]:
    """Four nodes with four GPUs each: partitions main, low and hard (preempted with and without a warning), high."""
    with running_cluster(node_timeout_s=5) as started:
        yield started


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs' folder, with pictures to learn from and a run that was started by hand."""
    folder = tmp_path_factory.mktemp("runs")
    options = ["experiment=smoke", "stage=auxiliary", "train.images=16", "engine.device=cpu"]
    succeed("train", *options, f"data.path={folder}/shards", f"run={folder}/by_hand")
    return folder


@pytest.fixture(autouse=True)
def cluster_in_order(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every test finds an empty queue and idle nodes, whatever the one before did."""
    yield
    if "cluster" in request.fixturenames:
        request.getfixturevalue("cluster").heal()
