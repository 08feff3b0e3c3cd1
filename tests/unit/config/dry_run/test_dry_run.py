"""`--dry-run`: what a run would take, from closed forms and from what is on the disk; nothing is started."""

import json
import re
import shutil
import socket
from dataclasses import replace

import pytest
from harness.commands import compose, invoke, succeed
from safetensors.torch import load_file

from lediflow.config.building.models import build_trained_model
from lediflow.config.dry_run.cost import work_of
from lediflow.config.dry_run.duration import duration_table, logged_speed
from lediflow.config.dry_run.memory import checkpoint_bytes, disk_facts, largest_micro_batch, snapshot_bytes
from lediflow.errors import UserError
from lediflow.models import build_model, count_parameters

GIB = 2**30
SMOKE = ("train", "experiment=smoke", "engine.device=cpu")
SDV = ("experiment=ffhq256_sdv_flow", "data.path=a")


def smoke(*options):
    return compose("train", "experiment=smoke", "data.path=a", "engine.device=cpu", *options)


def test_a_dry_run_prints_its_report_and_writes_no_files(tmp_path):
    options = ("stage=auxiliary", f"paths.runs={tmp_path}/runs", f"data.path={tmp_path}/data")
    said = succeed(*SMOKE, *options, "--dry-run")
    for title in (
        "auxiliary (learned prior) into",
        "Memory of each of 1 ranks",
        "Samples",
        "Disk",
        "Expected",
    ):
        assert title in said.out
    assert "96 toy pictures would be drawn" in said.out
    assert not list(tmp_path.iterdir())


def test_it_needs_neither_data_nor_parent(tmp_path):
    said = succeed("train", "experiment=demo", "stage=flow", f"paths.runs={tmp_path}", "dry_run=true")
    assert re.search(r"data\.path +not given", said.out)


def test_a_dry_run_refuses_contradictions_like_a_run():
    said = invoke(*SMOKE, "data.path=a", "stage=auxiliary", "dry_run_ranks=3", "--dry-run")
    assert said.status == 2
    assert "train.global_batch=16 cannot be split evenly over 3 ranks" in said.err


@pytest.mark.parametrize("stage", ["auxiliary", "flow", "latent_sampler"])
def test_parameters_are_those_of_the_models_that_training_builds(stage):
    command = smoke(f"stage={stage}")
    work = work_of(command, 1)
    assert work.parameters == count_parameters(build_trained_model(command))
    parent = 0 if stage == "auxiliary" else count_parameters(build_model(command.model.auxiliary))
    assert work.frozen.parameters == parent


def test_the_cost_of_a_frozen_parent_is_that_of_the_passes_of_the_stage():
    auxiliary, flow, sampler, baseline = (
        work_of(smoke(*options), 1)
        for options in (
            ["stage=auxiliary"], ["stage=flow"], ["stage=latent_sampler"], ["stage=flow", "prior=gaussian"]
        )
    )  # fmt: skip
    whole = auxiliary.model.total.flops
    decoder = sum(level.total.flops for level in auxiliary.model.levels if level.name.startswith("decoder"))
    assert flow.flops == 3 * flow.model.total.flops + whole
    assert sampler.flops == 3 * sampler.model.total.flops + whole - decoder
    assert baseline.flops == 3 * baseline.model.total.flops


@pytest.mark.parametrize(
    ("option", "images", "is_kept"),
    [("null", 96, True), ("null", 95, False), ("true", 95, True), ("false", 96, False)],
)
def test_a_sampler_that_encodes_once_has_no_encoder_cost_per_step(trained, option, images, is_kept):
    """48 images, each of which is seen twice in 96."""
    command = smoke("stage=latent_sampler", f"data.path={trained.latents}", f"stage.encode_once={option}",
                    f"train.images={images}")  # fmt: skip
    work = work_of(command, 1)
    assert (work.flops == 3 * work.model.total.flops) == is_kept
    assert work.frozen.parameters == count_parameters(build_model(command.model.auxiliary))


def test_epochs_are_those_of_the_shards_that_are_there(trained):
    options = ("synthetic_images=0", f"data.path={trained.latents}", "data.held_out_fraction=0.25")
    said = succeed(*SMOKE, "stage=auxiliary", "train.images=192", *options, "--dry-run")
    found = re.search(r"images per epoch +(\d+) \((\d+) held out\)", said.out)
    training, held_out = map(int, found.groups())
    assert training + held_out == 48 and held_out > 0
    assert f"{training / 16:,.1f}" in re.search(r"steps per epoch +(.*)", said.out)[1]
    assert f"{192 / training:,.1f}" in re.search(r"epochs +(.*)", said.out)[1]


def test_the_predicted_size_of_a_checkpoint_is_its_size(trained):
    """But for buffers, which are drawn once and are some dozens of numbers."""
    command = compose(*trained.commands["flow"])
    newest = sorted((trained.flow / "checkpoints").iterdir())[-1]
    tensors = [tensor for path in newest.glob("*.safetensors") for tensor in load_file(path).values()]
    found = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    assert found == pytest.approx(checkpoint_bytes(command, work_of(command, 1)), rel=0.01)


def test_the_disk_holds_the_kept_checkpoints_and_every_snapshot():
    command = smoke("stage=auxiliary", "train.images=1000", "train.checkpoint.every_images=100",
                    "train.checkpoint.keep_last=2", "train.checkpoint.keep_every_images=500",
                    "train.checkpoint.snapshot_every_images=250", "train.ema.sigma_rels=[0.05,0.1,0.2]")  # fmt: skip
    work = work_of(command, 1)
    parameters = work.parameters
    assert checkpoint_bytes(command, work) == 4 * parameters * (1 + 2 + 4) + 4 * parameters
    assert snapshot_bytes(command, work) == 2 * 3 * parameters
    facts = dict(disk_facts(command, work))
    assert facts["kept checkpoints"].endswith("3 while saving, 2 permanently")
    total = 5 * checkpoint_bytes(command, work) + 4 * snapshot_bytes(command, work)
    assert facts["at most"] == f"{total / 1e9:,.2f} GB"


def test_a_share_that_fits_is_not_split_and_a_small_gpu_gets_half():
    command = compose("train", *SDV)
    work = work_of(command, 2)
    kept = work.model.total.kept_bytes
    assert largest_micro_batch(command, work, work.engine, 24 * GIB) == 32
    below = int((2 * GIB + 32 * kept) / 0.94)  # less than activations of the share and all state
    assert largest_micro_batch(command, work, work.engine, below) == 16
    assert largest_micro_batch(command, work, work.engine, 1 * GIB) == 0


@pytest.mark.parametrize(("family", "ranks", "gibibytes"), [("sdv", 2, 24), ("rgb", 4, 40)])
@pytest.mark.parametrize("stage", ["auxiliary", "flow", "fm", "latent_sampler"])
def test_the_papers_models_train_on_the_gpus_of_their_experiments(family, stage, ranks, gibibytes):
    command = compose("train", f"experiment=ffhq256_{family}_{stage}", "data.path=a")
    work = work_of(command, ranks)
    assert largest_micro_batch(command, work, work.engine, gibibytes * GIB) == work.share


def test_the_predicted_speed_is_that_of_a_similar_run(trained):
    command = compose(*trained.commands["flow"])
    speeds = [
        json.loads(line).get("images_per_second")
        for line in (trained.flow / "events.jsonl").read_text().splitlines()
    ]
    first, *others = sorted(speed for speed in speeds if speed)
    assert logged_speed(command, 1).images_per_second == pytest.approx(
        (first + others[0]) / 2 if len(others) == 1 else others[len(others) // 2 - 1]
    )
    assert logged_speed(command, 2) is None  # two ranks have another speed


def test_speeds_are_also_read_from_sibling_runs_of_the_same_model(trained, tmp_path):
    shutil.copytree(trained.flow, tmp_path / "flow-seed0")
    command = replace(compose(*trained.commands["flow"]), run=f"{tmp_path}/flow-seed1", seed=1)
    assert logged_speed(command, 1).source.endswith(f"flow-seed0/events.jsonl, on {socket.gethostname()}")
    assert logged_speed(replace(command, stage=replace(command.stage, cap=2.0)), 1) is not None
    # a map takes eight times as long for each image, bfloat16 half as long on a GPU
    assert logged_speed(replace(command, stage=replace(command.stage, objective="flow_map")), 1) is None
    for other in ({"precision": "bfloat16"}, {"device": "cuda"}, {"compile": not command.engine.compile}):
        assert logged_speed(replace(command, engine=replace(command.engine, **other)), 1) is None
    sampler = compose(*trained.commands["sampler"])
    encoding = replace(sampler.stage, encode_once=not sampler.stage.encode_once)
    assert logged_speed(sampler, 1) is not None
    assert logged_speed(replace(sampler, stage=encoding), 1) is None  # another work for each image
    other = compose(*trained.commands["baseline"])
    assert logged_speed(replace(other, run=f"{tmp_path}/baseline"), 1) is None


def test_without_a_log_time_follows_from_flop_and_a_share_that_is_named():
    command = smoke("stage=auxiliary", "engine.peak_tflops=2", "run=none/none")
    work = work_of(command, 4)
    heads, row = duration_table(command, work)
    assert heads == ["on", "images/s", "time", "from"]
    assert float(row[1].replace(",", "")) == pytest.approx(4 * 0.3 * 2e12 / work.flops, rel=1e-3)
    assert "0.3" in row[3] and "assumed" in row[3]


def test_an_invalid_split_is_refused():
    with pytest.raises(UserError, match=r"micro_batch=3 does not divide"):
        work_of(smoke("stage=auxiliary", "engine.micro_batch=3"), 1)


def test_a_dry_run_can_assume_a_gpu_of_another_machine():
    command = compose(
        "train", "experiment=smoke", "data.path=a", "engine.device=cuda", "engine.precision=auto"
    )
    assert work_of(command, 2).engine.precision == "bfloat16"


def test_the_best_weights_are_one_more_copy_in_every_checkpoint():
    options = ("stage=auxiliary", "data.held_out_fraction=0.1")
    last, best = (smoke(*options, f"train.export={which}") for which in ("last", "best"))
    work = work_of(last, 1)
    assert checkpoint_bytes(best, work) - checkpoint_bytes(last, work) == 4 * work.parameters
