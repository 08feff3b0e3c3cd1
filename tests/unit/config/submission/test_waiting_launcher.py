"""The launcher that waits for its jobs."""

from lediflow.cluster import slurm
from lediflow.config.submission import launchers


def test_jobs_are_not_considered_ended_while_the_controller_does_not_respond(monkeypatch, caplog):
    answers = [
        ["a job"],
        slurm.SlurmError("squeue: no answer"),
        slurm.SlurmError("squeue: no answer"),
        ["a job"],
        [],
    ]
    asked = []

    def queue(jobs):
        asked.append(jobs)
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(slurm, "queue", queue)
    monkeypatch.setattr(launchers, "LOOK_EVERY_SECONDS", 0.0)
    launchers.wait_for(["7_0", "7_1", "9"])
    assert asked == [["7", "9"]] * 5
    assert caplog.text.count("no answer") == 1
