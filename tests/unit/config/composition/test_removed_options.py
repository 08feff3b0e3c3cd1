"""The saved configuration of a run may hold options of an earlier release: the run continues without them."""

import shutil

import pytest
from harness.commands import succeed
from omegaconf import OmegaConf

from lediflow.config.composition.advice import continuing_command

REMOVED = "check_attention_every_steps"  # of `train`


@pytest.fixture
def old_run(trained, tmp_path):
    """A run whose saved configuration has an option that no command knows now."""
    run = tmp_path / "auxiliary"
    shutil.copytree(trained.auxiliary, run)
    saved = OmegaConf.load(run / "config.yaml")
    saved.train[REMOVED] = 1000
    OmegaConf.save(saved, run / "config.yaml")
    return run


def test_a_run_with_a_removed_option_continues(old_run, trained):
    command = [*trained.commands["auxiliary"][:-1], f"run={old_run}", "train.images=96"]
    assert "continuing" in succeed(*command).err
    assert (old_run / "checkpoints" / f"{96:012d}").is_dir()
    assert REMOVED not in (old_run / "config.yaml").read_text()


def test_the_command_that_continues_a_run_omits_removed_options(old_run):
    command = continuing_command(old_run)
    assert command is not None
    assert "train.images=64" in command
    assert REMOVED not in command
