"""`teacher=`: a finished run of the same stage, prior, model, width, codec and parent, that is no flow map itself."""

import json
import re
import shutil
from dataclasses import replace

import pytest
from harness.commands import compose

from lediflow.config.building.models import load_parent
from lediflow.config.building.teacher import check_teacher_data, load_teacher, teacher_hash
from lediflow.config.composition.checks import check_command
from lediflow.data.shards.reader import ShardReader
from lediflow.disk import sha256_of
from lediflow.errors import UserError


def command_of(trained, teacher, *options):
    return compose(
        "train", "experiment=smoke", f"data.path={trained.latents}", f"parent={trained.auxiliary}",
        "stage=flow", "stage.objective=flow_map", f"teacher={teacher}", *options,
    )  # fmt: skip


def refusal(trained, teacher, *options):
    with pytest.raises(UserError) as said:
        load_teacher(command_of(trained, teacher, *options))
    return str(said.value)


@pytest.fixture
def changed(trained, tmp_path):
    """A copy of the flow's export with other facts."""

    def change(**facts):
        shutil.copytree(trained.flow, tmp_path / "run", dirs_exist_ok=True)
        path = tmp_path / "run/export/config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | facts))
        return tmp_path / "run"

    return change


def test_a_teacher_is_pinned_by_its_hash(trained):
    command = command_of(trained, trained.flow)
    pinned = sha256_of(trained.flow / "export/model.safetensors")
    teacher = load_teacher(command)
    assert teacher.sha256 == teacher_hash(command) == pinned
    assert not any(weight.requires_grad for weight in teacher.model.parameters())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["teacher=null"], r"flow_map learns from a finished run of stage=flow; give it: teacher=RUN"),
        (["stage.objective=velocity"], r"no teacher; set stage.objective=flow_map or reflow, or leave"),
    ],
)
def test_teacher_and_objective_belong_together(trained, options, message):
    with pytest.raises(UserError, match=message):
        check_command(command_of(trained, trained.flow, *options))


def test_a_stage_that_has_no_teacher_says_which_do(trained):
    command = compose("train", "experiment=smoke", "data.path=a", "stage=auxiliary", "teacher=b")
    with pytest.raises(UserError, match="those of flow and latent_sampler can have one"):
        check_command(command)


@pytest.mark.parametrize(
    ("teacher", "options", "message"),
    [
        ("nothing", [], r"the teacher of stage.objective=flow_map is to be read from .*there is no run"),
        ("sampler", [], r"is a run of stage=latent_sampler prior=learned, and this is one of stage=flow"),
        ("baseline", [], r"prior=gaussian, and this is one of stage=flow prior=learned; give a run of the same"),
        ("flow", ["model.velocity.mapping.depth=2"], r"another model \(mapping.depth: 1, now 2\); a student"),
        ("flow", ["model.velocity.num_classes=3"], r"another model \(num_classes: 0, now 3\)"),
        ("flow", ["stage.prior_widening=0.1"], r"this run from one with 0\.1 and auto; leave both at auto"),
        ("flow", ["stage.prior_scale=2"], r"stage.prior_scale=3, this run from one with auto and 2"),
    ],
)  # fmt: skip
def test_a_run_that_cannot_be_the_teacher_is_refused(trained, teacher, options, message):
    assert re.search(message, refusal(trained, trained.root / teacher, *options))


def test_dropout_may_differ(trained):
    assert load_teacher(command_of(trained, trained.flow, "model.velocity.levels.0.dropout=0.1"))


def test_a_flow_map_is_no_teacher(trained, changed):
    facts = json.loads((trained.flow / "export/config.json").read_text())
    spec = facts["spec"] | {"is_flow_map": True}
    folder = changed(spec=spec, teacher={"path": "runs/first", "sha256": "0"})
    assert "is itself a flow map; give its own teacher: runs/first" in refusal(trained, folder)


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"image_size": 8}, r"was trained at image_size 8, but model.image_size=16; give a teacher of this size"),
        ({"codec": {"name": "taesd"}}, r"was trained on .*taesd.*, but data.path=.* holds pixels; give data of"),
        ({"parent": {"path": "runs/other", "sha256": "1" * 64}}, r"model runs/other \(1{12}\), but parent=.*has other"),
    ],
)  # fmt: skip
def test_a_teacher_of_other_data_or_another_parent_is_refused(trained, facts, message):
    command = command_of(trained, trained.flow)
    teacher, reader = load_teacher(command), ShardReader.open(trained.latents)
    check_teacher_data(command, teacher, load_parent(command), reader)
    other = replace(teacher, facts=type(teacher.facts)({**teacher.facts, **facts}))
    with pytest.raises(UserError, match=message):
        check_teacher_data(command, other, load_parent(command), reader)
