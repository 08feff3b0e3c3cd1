"""`teacher=`: a finished run of the same stage, prior, model, width, codec and parent, that is no flow map itself."""

import json
import re
import shutil
from dataclasses import replace

import pytest
import torch
from harness.commands import compose

from lediflow.config.building.inputs import open_inputs, stage_options
from lediflow.config.building.models import load_parent
from lediflow.config.building.teacher import (
    check_derivatives,
    check_latent_source,
    check_teacher_data,
    identity_of,
    load_teacher,
    pinned_hashes,
)
from lediflow.config.composition.checks import check_command
from lediflow.config.dry_run.cost import work_of
from lediflow.data.shards.reader import ShardReader
from lediflow.disk import sha256_of
from lediflow.engine.ranks import Ranks
from lediflow.errors import UserError
from lediflow.models import load_model
from lediflow.models.cost import model_cost
from lediflow.models.specs import latent_shape
from lediflow.stages import derivatives


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
    assert pinned_hashes(command) == {"teacher": teacher.sha256} == {"teacher": pinned}
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


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["engine=deepspeed", "engine.zero=3"],
            r"ZeRO 3 shards the weights; use engine.zero=0 to 2, or stage",
        ),
        (["engine.float8=true"], r"products in 8 bits do not support; use engine.float8=false"),
    ],
)
def test_weights_that_cannot_be_differentiated_forward_are_refused(trained, options, message):
    with pytest.raises(UserError, match=message):
        check_command(command_of(trained, trained.flow, "stage.objective=meanflow", *options))


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


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["stage.objective=velocity", "teacher=null"],
            r"this training of stage=flow has no such paths; leave",
        ),
        (["prior=gaussian"], r"the Gaussian baseline has none; leave sampler= out"),
        (["stage=latent_sampler"], r"this training of stage=latent_sampler has no such paths"),
        (["stage.objective=meanflow"], r"this training of stage=flow has no such paths"),
        (
            ["sampler=null", "stage.sampled_share=0.3"],
            r"sampled_share=0\.3 .* this training has none; give it, samp",
        ),
        (
            ["sampler=null", "stage.objective=velocity", "teacher=null", "stage.sampled_share=1"],
            r"sampled_share=1 .* or leave stage\.sampled_share out",
        ),
    ],
)
def test_a_sampler_and_paths_that_start_from_its_latents_belong_together(trained, options, message):
    with pytest.raises(UserError, match=message):
        check_command(command_of(trained, trained.flow, f"sampler={trained.sampler}", *options))


def test_the_sampler_of_the_paths_is_pinned_and_a_part_of_the_identity(trained):
    command = command_of(trained, trained.flow, f"sampler={trained.sampler}")
    teacher = load_teacher(command)
    pinned = sha256_of(trained.sampler / "export/model.safetensors")
    assert pinned_hashes(command) == identity_of(teacher) == {"teacher": teacher.sha256, "sampler": pinned}
    assert stage_options(command)["sampled_share"] == 0.5
    assert not any(weight.requires_grad for weight in teacher.latents.model.parameters())


@pytest.mark.parametrize("options", [["sampler=null"], ["stage.sampled_share=0"]])
def test_without_sampled_latents_a_run_is_what_it_was(trained, options):
    command = command_of(trained, trained.flow, f"sampler={trained.sampler}", *options)
    assert load_teacher(command).latents is None
    assert "sampler" not in pinned_hashes(command) and "sampled_share" not in stage_options(command)


def test_a_sampler_that_is_none_or_of_another_parent_is_refused(trained):
    said = refusal(trained, trained.flow, f"sampler={trained.baseline}")
    assert "give sampler=RUN, a run of stage=latent_sampler" in said
    said = refusal(trained, trained.flow, "sampler=nothing")
    assert re.search("the latent sampler is to be read from .*there is no run", said)
    command = command_of(trained, trained.flow, f"sampler={trained.sampler}")
    source, parent = load_teacher(command).latents, load_parent(command)
    other = replace(
        source, facts=type(source.facts)({**source.facts, "parent": {"path": "a", "sha256": "1"}})
    )
    with pytest.raises(
        UserError, match=r"trained on the auxiliary model a \(1\), .* give a latent sampler of"
    ):
        check_latent_source(other, parent)


def test_derivatives_are_compared_with_differences_when_a_run_begins(trained, monkeypatch):
    command = command_of(trained, trained.flow, "stage.objective=meanflow")
    teacher, device = load_teacher(command), torch.device("cpu")
    check_derivatives(command, teacher, device)
    monkeypatch.setattr(derivatives, "derivative", lambda mean, at, directions: torch.zeros_like(at[0]))
    with pytest.raises(RuntimeError, match="loses tangents on the way"):
        check_derivatives(command, teacher, device)
    check_derivatives(command_of(trained, trained.flow), teacher, device)  # flow_map has none


def test_drawing_latents_counts_in_the_cost(trained):
    words = ["train.global_batch=16", "engine.micro_batch=16"]
    plain, drawing = (
        work_of(command_of(trained, trained.flow, f"sampler={sampler}", *words), 1)
        for sampler in ("null", trained.sampler)
    )
    spec = load_model(trained.sampler / "export").spec
    sampler = model_cost(spec, *latent_shape(load_model(trained.auxiliary / "export").spec, 16, 16)[1:])
    assert drawing.frozen_parameters - plain.frozen_parameters == sampler.total.parameters
    assert drawing.flops - plain.flops > 8 * sampler.total.flops  # and the decoder's


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


def test_a_teacher_and_a_sampler_that_have_seen_held_out_images_are_named(trained, caplog):
    options = (f"sampler={trained.sampler}", "data.held_out_fraction=0.5", "synthetic_images=0")
    open_inputs(command_of(trained, trained.flow, *options), Ranks())
    for option, run in (("teacher", trained.flow), ("sampler", trained.sampler)):
        assert f"{option}={run} was trained with data.held_out_fraction=" in caplog.text
