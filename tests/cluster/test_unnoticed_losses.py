"""Attempts that SLURM gives up while their ranks live on, and losses that it does not notice; the run continues."""

from __future__ import annotations

from harness.submitted import TWO_NODES, braked, submit

from lediflow.tracking.event_log import read_events

LONG = (
    "train.images=40000",
    "train.checkpoint.every_images=64",
    "train.log_every_images=32",
    "tracking.progress=false",
)


def test_an_attempt_that_slurm_gave_up_yields_the_run_to_the_next_one(cluster, runs):
    """Split brain: slurmd dies, the job restarts elsewhere, and the ranks of the first attempt live on."""
    slow, _ = braked(runs / "slow-split")
    run = submit(cluster, runs, "split", *TWO_NODES, *LONG, slow)
    run.wait_for_progress()
    first = run.noted("start")[0]["nodes"]
    for node in first:
        cluster.kill_slurmd(int(node.removeprefix("node")))
    # srun may fail at once where a node was just lost
    cluster.wait_until(run.resumes, "another attempt resumes", 120)
    second = run.noted("start")[-1]
    assert not {*second["nodes"]} & {*first}
    run.wait_for_progress()
    cluster.wait_until(
        lambda: run.hosts_of_ranks() == {*second["nodes"]}, "the ranks of the first attempt exit", 60
    )
    resumed = run.resumes()[-1]

    def trained():
        """Images seen at the lines of training since the last session began."""
        log = read_events(run.run / "events.jsonl")
        begins = max(number for number, event in enumerate(log) if event["event"] == "resume")
        return [event["images_seen"] for event in log[begins:] if event["event"] == "train"]

    cluster.wait_until(lambda: len(trained()) > 2, "the new attempt trains", 60)
    assert trained() == sorted(trained())  # no other session has written since
    assert trained()[0] > resumed


def test_a_run_continues_after_a_reboot_of_a_node_that_slurm_does_not_notice(cluster, runs):
    slow, _ = braked(runs / "slow-rebooted")
    run = submit(cluster, runs, "rebooted", *TWO_NODES, *LONG, slow)
    saved = run.wait_for_progress()
    for times, place in enumerate((1, 0), start=1):  # another node, then that of the supervisor
        node = int(run.noted("start")[-1]["nodes"][place].removeprefix("node"))
        cluster.kill_node(node)
        cluster.start_node(node)
        cluster.wait_until(lambda times=times: len(run.resumes()) == times, "another attempt resumes", 120)
        assert run.resumes()[-1] >= saved
        saved = run.wait_for_progress()
