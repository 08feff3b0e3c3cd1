"""`python -m lediflow.status` with stand-ins for SLURM's commands; tests/cluster has the real ones."""

import pytest
from harness.job_folders import SlurmStandIn

from lediflow import status


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    return SlurmStandIn(tmp_path, monkeypatch)


@pytest.fixture
def runs(tmp_path):
    (tmp_path / "runs").mkdir()
    return tmp_path / "runs"


@pytest.fixture
def run_status(runs, monkeypatch, capsys):
    """`lediflow.status words...` on these runs, or those of `place` -> (exit status, stdout, stderr)."""

    def call(*words, place=runs):
        option = ["--runs", str(place)] if words and words[0] in status.ACTIONS else [str(place)]
        monkeypatch.setattr("sys.argv", ["status", *words, *option])
        code = 0
        try:
            status.main()
        except SystemExit as end:
            code = end.code
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call
