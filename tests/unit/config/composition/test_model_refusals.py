"""A model that cannot be built, or not for its data, is refused by the option to change, before anything is written."""

import re

import pytest
from harness.commands import compose_raw, invoke

from lediflow.config.composition.checks import check_command, typed
from lediflow.errors import UserError

FLOW = ("stage=flow", "prior=gaussian")


def refusal(*options):
    """What `python -m lediflow.train` says of these options."""
    config = compose_raw("train", "experiment=smoke", "data.path=a", *options)
    with pytest.raises(UserError) as said:
        check_command(typed(config))
    return str(said.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["model.velocity.levels.1.head_dim=24"],
            r"model\.velocity\.levels\[1\]: .*width 32 with head_dim 24",
        ),
        (
            ["model.auxiliary.levels.0.head_dim=4"],
            r"model\.auxiliary\.levels\[0\]: head_dim 4: .*multiple of 8",
        ),
        (["model.velocity.mapping.width=33"], r"model\.velocity\.mapping: mapping\.width 33: .*even"),
        (["model.velocity.conditioning=vectro"], r"model\.velocity: conditioning 'vectro': .*mean 'vector'"),
        (["model.velocity.levels=[]"], r"model\.velocity: levels: the list is empty"),
        (["model.auxiliary.halvings=2"], r"model\.auxiliary: halvings 2 with 2 levels: .*choose 0 to 1"),
        (["model.auxiliary.logvar_ceiling=-9"], r"model\.auxiliary: logvar_ceiling -9\.0 is not above"),
        (
            ["model.auxiliary.image_channels=3", "stage=auxiliary"],
            r"^model\.auxiliary\.image_channels=3, but",
        ),
        (["model.auxiliary.image_channels=3", "stage=flow"], r"^model\.auxiliary\.image_channels=3, but"),
        (["model.velocity.image_channels=3", *FLOW], r"velocity\.image_channels=3, .*has model\.channels=1"),
        (
            ["model.latent_sampler.latent_channels=4", "stage=latent_sampler"],
            r"latent_channels=4, but latents have model\.auxiliary\.latent_channels=2; leave",
        ),
        (["stage.cap=0", *FLOW], r"^stage\.cap=0"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_an_inconsistent_part_is_named_with_its_key(options, message):
    assert re.search(message, refusal(*options))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["model.velocity.levels.0.kernel_size=9", *FLOW],
            r"kernel 9 .*8x8 token grid; lower model\.velocity\.levels\[0\]\.kernel_size",
        ),
        (
            ["model.auxiliary.levels.1.kernel_size=5", "stage=auxiliary"],
            r"kernel 5 .*4x4 token grid; lower model\.auxiliary\.levels\[1\]\.kernel_size",
        ),
        (
            ["model.latent_sampler.levels.0.kernel_size=5", "stage=latent_sampler"],
            r"kernel 5 .*4x4 token grid; lower model\.latent_sampler\.levels\[0\]\.kernel_size",
        ),
        (["model.image_size=18", *FLOW], r"18x18.*multiples of 4.*smaller model\.velocity\.patch_size"),
        (["model.image_size=18", "stage=auxiliary"], r"18x18.*smaller model\.auxiliary\.patch_size"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_levels_that_cannot_tile_the_image_are_named_with_the_option(options, message):
    assert re.search(message, refusal(*options))


@pytest.mark.parametrize(
    ("options", "model"),
    [(["stage=auxiliary"], "auxiliary"), (["stage=flow"], "velocity"), ([*FLOW], "velocity"),
     (["stage=latent_sampler"], "latent_sampler")],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_a_model_that_is_not_given_how_images_are_augmented_is_refused_with_what_to_set(options, model):
    said = refusal("data.augment.probability=0.12", *options)
    assert f"set model.{model}.augmentation=true, or data.augment.probability=0" in said
    given = compose_raw("train", "experiment=smoke", "data.path=a", *options, f"model.{model}.augmentation=true",
                        "data.augment.probability=0.12")  # fmt: skip
    check_command(typed(given))


def test_augmentation_without_a_transformation_or_with_encode_once_is_refused():
    auxiliary = ("stage=auxiliary", "model.auxiliary.augmentation=true", "data.augment.probability=0.12")
    kinds = ("flip_horizontal", "flip_vertical", "scaling", "rotation", "anisotropy", "translation")
    said = refusal(*auxiliary, *(f"data.augment.{kind}=false" for kind in kinds))
    assert f"leave one of data.augment.{{{','.join(kinds)}}} on, or set data.augment.probability=0" in said
    sampler = ("stage=latent_sampler", "model.latent_sampler.augmentation=true", *auxiliary[2:])
    assert "leave stage.encode_once out" in refusal(*sampler, "stage.encode_once=true")


@pytest.mark.parametrize(
    "flips", [["flip_horizontal"], ["flip_vertical"], ["flip_horizontal", "flip_vertical"]]
)
def test_augmentation_by_flips_that_the_data_makes_already_is_refused(flips):
    auxiliary = ("stage=auxiliary", "model.auxiliary.augmentation=true", "data.augment.probability=0.12")
    kinds = ("flip_horizontal", "flip_vertical", "scaling", "rotation", "anisotropy", "translation")
    alone = [f"data.augment.{kind}={str(kind in flips).lower()}" for kind in kinds]
    made = [f"data.{flip}=true" for flip in flips]
    said = refusal(*auxiliary, *alone, *made)
    assert (
        f"no transformation but {' and '.join(f'data.augment.{flip}' for flip in flips)} does nothing" in said
    )
    assert f"set {' and '.join(f'data.{flip}' for flip in flips)} to false" in said
    for options in (alone, made, [*alone, *made, "data.augment.rotation=true"]):  # each of these augments
        given = compose_raw("train", "experiment=smoke", "data.path=a", *auxiliary, *options)
        check_command(typed(given))


def test_the_command_ends_with_the_message_and_leaves_no_files(tmp_path):
    run, data = tmp_path / "run", tmp_path / "data"
    options = (*FLOW, "engine.device=cpu", f"run={run}", f"data.path={data}")
    said = invoke("train", "experiment=smoke", *options, "model.velocity.levels.0.kernel_size=9")
    assert said.status == 2
    assert "model.velocity.levels[0].kernel_size" in said.err and "Traceback" not in said.err
    assert not list(tmp_path.iterdir())


def test_a_flow_with_fewer_classes_than_its_data_is_refused_with_their_number(tmp_path):
    options = (*FLOW, "engine.device=cpu", f"run={tmp_path}/run", f"data.path={tmp_path}/data")
    said = invoke("train", "experiment=smoke", *options, "model.velocity.num_classes=1")
    assert said.status == 2
    assert "has 2 classes, but the model is for 1; set model.velocity.num_classes=2" in said.err


def test_a_parent_with_other_latents_is_refused_with_both_shapes(trained, tmp_path):
    command = [word for word in trained.commands["flow"] if not word.startswith("run=")]
    said = invoke(*command, f"run={tmp_path}/run", "model.auxiliary.halvings=0")
    assert said.status == 2
    assert re.search(r"makes latents of 2x4x4, but model\.auxiliary describes 2x8x8", said.err)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("train.images=0", "train.images=0 must be at least 1"),
        ("train.global_batch=0", "train.global_batch=0 must be at least 1"),
        ("train.learning_rate=-1", "train.learning_rate=-1.0 must be at least 0"),
        ("train.learning_rate=nan", "train.learning_rate=nan must be at least 0"),
        ("train.beta2=1", "train.beta2=1.0 must be at least 0 and below 1"),
        ("train.bad_steps.in_a_row=0", "train.bad_steps.in_a_row=0 must be at least 1"),
        ("train.checkpoint.keep_last=-3", "train.checkpoint.keep_last=-3 must be at least 0"),
        ("train.schedule.decay_images=-100", "train.schedule.decay_images=-100 must be at least 0"),
        ("engine.gradient_clip=-1", "engine.gradient_clip=-1.0 must be at least 0"),
        ("engine.micro_batch=-4", "engine.micro_batch=-4 must be at least 0"),
        ("stop.wall_minutes=nan", "stop.wall_minutes=nan must be above 0"),
        ("watchdog.step_seconds=0", "watchdog.step_seconds=0.0 must be above 0"),
        ("seed=-1", "seed=-1 must be at least 0 and at most 2^64 - 1"),
    ],
)
def test_a_number_out_of_its_range_is_refused(option, words):
    assert refusal(option) == words
