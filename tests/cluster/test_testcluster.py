"""The test cluster keeps what tests of other things rely on."""

from __future__ import annotations

from harness.cluster import Cluster


def test_a_job_spans_nodes_with_names_and_addresses_of_their_own(cluster: Cluster) -> None:
    job = cluster.sbatch("srun bash -c 'echo $(hostname) $(hostname -I)'", "--nodes=4", "--ntasks-per-node=1")
    assert cluster.wait(job) == "COMPLETED"
    network = cluster.options["TESTCLUSTER_NET"]
    assert sorted(cluster.output(job).split("\n")) == [
        "",
        *(f"node{n} {network}.{10 + n}" for n in (1, 2, 3, 4)),
    ]
