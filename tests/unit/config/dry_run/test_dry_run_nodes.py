"""A plan for many nodes, against closed forms."""

import pytest
from harness.commands import compose, invoke

from lediflow.config.dry_run.nodes import Cluster, nodes_table, plan_of
from lediflow.errors import UserError

FLOW = ("experiment=ffhq256_rgb_flow", "data.path=", "train.global_batch=256", "engine.precision=bfloat16")


def planned(*options, nodes=4):
    return compose("train", *FLOW, f"nodes={nodes}", *options)


@pytest.mark.parametrize(
    "zero, weights_and_gradients",
    [(1, 2), (2, 1 + 64), (3, 64 * (2 + 1))],
    ids=["stage 1", "stage 2", "stage 3"],
)
def test_the_traffic_of_a_rank_follows_from_the_zero_stage(zero, weights_and_gradients):
    """On 4 ranks in 64 micro-batches: a ring passes 3/4 of each bfloat16 gradient and weight on."""
    plan = plan_of(planned(f"engine.zero={zero}"), 1, Cluster(gpu_bytes=0))  # nothing fits: as configured
    assert (plan.work.ranks, plan.work.micro_batch, plan.work.accumulation) == (4, 1, 64)
    assert plan.sent_bytes == pytest.approx(3 / 4 * 2 * plan.work.parameters * weights_and_gradients)


def test_more_nodes_compute_faster_by_their_number_and_send_no_more_than_twice_the_weights():
    one, sixteen = plan_of(planned(), 1), plan_of(planned(), 16)
    assert one.computing_seconds == pytest.approx(16 * sixteen.computing_seconds)
    assert one.sent_bytes < sixteen.sent_bytes < 2 * 2 * sixteen.work.parameters
    assert sixteen.sending_seconds == pytest.approx(sixteen.sent_bytes / 25e9)


def test_the_smallest_stage_that_holds_a_share_at_once_is_planned():
    assert plan_of(planned("engine.zero=3"), 16).work.engine.zero == 1


def test_the_table_doubles_up_to_the_requested_number():
    table = nodes_table(planned("train.global_batch=192", nodes=12))
    assert [row[0] for row in table[1:]] == ["1", "2", "4", "8", "12"]


def test_a_batch_that_is_not_a_multiple_of_the_ranks_is_refused():
    with pytest.raises(
        UserError, match=r"nodes=128 are 512 ranks, which cannot share train.global_batch=256; choose"
    ):
        nodes_table(planned(nodes=128))


def test_the_command_prints_it():
    said = invoke("train", *FLOW, "--dry-run", "nodes=8")
    assert said.status == 0, said.err
    assert "On up to 8 nodes" in said.out
