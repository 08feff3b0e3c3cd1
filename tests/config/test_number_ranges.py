"""Every number that a command takes has a range, and what is outside is refused with status 2."""

import dataclasses
from typing import get_args, get_origin, get_type_hints

import pytest
from harness.commands import compose, invoke

from lediflow.config.composition.schema import COMMANDS, stage_options
from lediflow.config.submission.pipelines import TaskConfig
from lediflow.errors import UserError
from lediflow.nn.specs import HourglassSpec
from lediflow.ranges import range_of

REQUIRED = {
    "sample": ["run=r"],
    "evaluate": ["run=r", "data.path=d"],
    "encode": ["source=s", "output=o"],
    "prepare": ["source=s", "output=o"],
    "train": ["experiment=smoke", "stage=auxiliary", "data.path=d", "run=r"],
    "submit": [],
}


def kinds(kind):
    """The dataclass and those inside it."""
    yield kind
    for hint in get_type_hints(kind).values():
        for part in (hint, *get_args(hint)):
            if dataclasses.is_dataclass(part):
                yield from kinds(part)


def numbers(hint):
    parts = get_args(hint) if get_origin(hint) is not None else (hint,)
    return {int, float} & {*parts}


def test_every_number_of_every_command_has_a_range():
    found = {
        part
        for kind in (*COMMANDS.values(), *stage_options(), HourglassSpec, TaskConfig)
        for part in kinds(kind)
    }
    bare = [
        f"{kind.__name__}.{name}"
        for kind in found
        for name, hint in get_type_hints(kind).items()
        if numbers(hint) and range_of(kind, name) is None
    ]
    assert not bare


SAMPLING = ["temperature=nan", "temperature=-1", "temperature=inf", "batch_size=0", "batch_size=-1", "steps=-1",
            "count=-3", "count=0", "latent_steps=0", "guidance=nan", "labels=[-1]", "seed=-1",
            "seed=18446744073709551616", "steps=10000000000", "latent_steps=10000000000"]  # fmt: skip
WRONG = {
    "sample": SAMPLING,
    "evaluate": [*SAMPLING, "step_counts=[]", "step_counts=[-1]", "step_counts=[2,2]", "timed_batch=0",
                 "reference_count=-5", "watch_seconds=nan", "grid.steps=[]", "grid.temperatures=[nan]",
                 "metrics.neighbors=0", "features.size=0", "features.std=[0,1,1]", "features.mean=[0.5]"],
    "encode": ["batch_size=0", "rank=-1", "ranks=-2", "check=-1", "threads=-1"],
    "prepare": ["size=0", "shard_samples=-1", "workers=-2"],
    "train": ["seed=18446744073709551616", "train.images=0", "train.learning_rate=inf", "train.beta1=nan",
              "train.ema.sigma_rels=[0.1,0.1]", "train.validation.samples=0", "stage.beta=nan", "engine.zero=4",
              "data.held_out_fraction=nan", "data.threads=0", "data.reading.attempts=0", "train.beta2=1",
              "watchdog.data_seconds=-1", "model.auxiliary.logvar_floor=nan", "model.auxiliary.levels.0.depth=0",
              "model.velocity.mapping.width=-2", "dry_run_ranks=-1", "stop.wall_minutes=inf"],
    "submit": ["slurm.nodes=0", "slurm.timeout_min=-5", "slurm.mem_gb=nan", "slurm.crash_retries=-1"],
}  # fmt: skip


@pytest.mark.parametrize(("command", "option"), [(name, option) for name in WRONG for option in WRONG[name]])
def test_a_number_out_of_its_range_is_refused_by_its_name(command, option):
    with pytest.raises(UserError) as refused:
        compose(command, *REQUIRED[command], option)
    key = option.partition("=")[0].replace(".levels.0.", ".levels[0].")
    assert str(refused.value).startswith(key)


@pytest.mark.parametrize("command", ["sample", "train", "submit"])
def test_the_command_ends_with_status_2_and_one_message(command):
    wrong = WRONG[command][0]
    said = invoke(command, *REQUIRED["train" if command == "submit" else command], wrong)
    assert said.status == 2
    assert said.err.startswith(f"error: {wrong.partition('=')[0]}")
    assert "Traceback" not in said.err


def test_a_share_without_the_number_of_shares_is_refused():
    said = invoke("encode", "source=s", "output=o", "rank=5")
    assert said.status == 2
    assert "rank=5 needs the number of processes" in said.err


@pytest.mark.parametrize(
    ("command", "options", "words"),
    [("sample", ["run="], "run= is empty"), ("sample", ["run=r", "sampler="], "sampler= is empty.*sampler=null"),
     ("prepare", ["source=s", "output= "], "output= is empty"), ("train", ["name="], "name= is empty"),
     ("train", ["data.reading.cache="], "data.reading.cache= is empty")],
)  # fmt: skip
def test_an_empty_name_is_not_this_folder(command, options, words):
    with pytest.raises(UserError, match=words):
        compose(command, *REQUIRED[command], *options)
