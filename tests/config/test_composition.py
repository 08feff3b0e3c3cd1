"""Every YAML file composes, and every experiment builds every model it can train."""

import dataclasses
from pathlib import Path

import hydra
import pytest
import torch
from harness.commands import COMMANDS, compose, load_cached
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import OmegaConf

from lediflow.config.building.models import build_stage, build_trained_model
from lediflow.config.composition.checks import check_command
from lediflow.config.composition.compose import conf_folder, register_schemas
from lediflow.errors import UserError
from lediflow.models import count_parameters
from lediflow.models.parameters import parameter_groups
from lediflow.stages import STAGES

CONF = conf_folder()
OF_JOBS = ("submit", "pipeline")  # compositions in addition to the commands' own


def options(group: str) -> list[str]:
    """The choices of a configuration group."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


GROUPS = {group: options(group) for group in ("stage", "model", "engine", "tracking", "data", "paths")}
CHOICES = [f"{group}={option}" for group, found in GROUPS.items() for option in found]


def built(command):
    """The model, without its memory."""
    with torch.device("meta"):
        return build_trained_model(command)


def test_every_folder_of_conf_is_looked_at_here():
    folders = {path.parent.relative_to(CONF).as_posix() for path in CONF.rglob("*.yaml")}
    of_jobs = {"slurm", "pipeline", "pipeline/common"}  # test_requests.py and test_pipelines.py look at these
    assert folders == {".", "experiment", "experiment/common", "codec", *of_jobs, *GROUPS}


@pytest.mark.parametrize("choice", CHOICES)
def test_every_choice_of_every_group_composes(choice):
    compose("train", "experiment=smoke", choice)


@pytest.mark.parametrize("codec", options("codec"))
def test_every_codec_composes(codec):
    weights = [] if codec == "pixels" else ["codec.path=weights"]
    assert compose("encode", f"codec={codec}", "source=a", "output=b", *weights).codec.name == codec


@pytest.mark.parametrize(
    "command", sorted({path.stem for path in CONF.glob("*.yaml")} - {"command", *OF_JOBS})
)
def test_every_command_composes_and_is_one(command):
    assert command.partition("_")[0] in COMMANDS  # edit_vary is the command edit, first argument vary
    required = {
        "train": ["data.path=a"],
        "prepare": ["source=a", "output=b"],
        "encode": ["source=a", "output=b"],
        "sample": ["run=a"],
        "evaluate": ["images=a", "reference=b", "output=c"],
        "studio": ["run=a", "sampler=b"],
        "export": ["run=a", "output=b"],
        "edit_interpolate": ["run=a", "output=b", "seeds=[0,1]"],
        "edit_vary": ["run=a", "output=b", "image=c"],
        "edit_inpaint": ["run=a", "output=b", "image=c", "mask=d"],
        "edit_anonymise": ["run=a", "output=b", "source=c", "masks=d", "key=e"],
        "edit_anonymity": ["run=a", "output=b", "source=c", "key=e"],
        "edit_attribute": ["run=a", "output=b", "image=c", "with_images=d", "without_images=e"],
    }
    compose(command, *required[command])


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("experiment", ["demo", "demo_ci", "smoke"])
def test_every_general_experiment_trains_every_stage(experiment, stage):
    command = compose("train", f"experiment={experiment}", f"stage={stage}", "data.path=a")
    assert command.stage.name == stage
    check_command(command)
    assert count_parameters(built(command)) > 0


@pytest.mark.parametrize("experiment", [name for name in options("experiment") if name.startswith("ffhq")])
def test_every_paper_experiment_builds_its_own_stage(experiment):
    command = compose("train", f"experiment={experiment}", "data.path=a")
    check_command(command)
    ending = {"fm": "flow", "sampler": "latent_sampler"}.get(
        experiment.rsplit("_", 1)[1], experiment.rsplit("_", 1)[1]
    )
    assert command.stage.name == ending
    assert (command.prior == "gaussian") == experiment.endswith("_fm")
    groups = parameter_groups(built(command), command.train.learning_rate, command.train.weight_decay)
    # the paper's rate; mapping networks learn at a third of it
    assert {round(group["lr"], 9) for group in groups} <= {3e-4, 1e-4}


@pytest.mark.parametrize(
    ("experiment", "millions"),
    [
        ("ffhq256_rgb_flow", 160.5),
        ("ffhq256_rgb_fm", 160.5),
        ("ffhq256_sdv_flow", 154.4),
        ("ffhq256_sdv_fm", 154.4),
        ("ffhq256_sdv_auxiliary", 34.9),
        ("ffhq256_rgb_latent_sampler", 17.0),
        ("ffhq256_sdv_latent_sampler", 17.0),
    ],
)
def test_paper_experiments_have_the_papers_number_of_parameters(experiment, millions):
    model = built(compose("train", f"experiment={experiment}", "data.path=a"))
    assert count_parameters(model) / 1e6 == pytest.approx(millions, abs=0.1)  # the paper rounds to 0.1 and 1


@pytest.mark.parametrize(
    ("experiment", "batch"),
    [
        ("ffhq256_rgb_auxiliary", 256),
        ("ffhq256_rgb_flow", 128),
        ("ffhq256_sdv_flow", 64),
        ("ffhq256_sdv_fm", 64),
    ],
)
def test_paper_experiments_have_the_papers_batches(experiment, batch):
    assert compose("train", f"experiment={experiment}", "data.path=a").train.global_batch == batch


def test_the_flow_and_its_baseline_differ_only_by_the_input_z():
    flow, baseline = (
        compose("train", "experiment=demo", "data.path=a", f"prior={p}") for p in ("learned", "gaussian")
    )
    left, right = dataclasses.asdict(flow), dataclasses.asdict(baseline)
    assert {key for key in left if left[key] != right[key]} == {"prior", "run"}
    extra = count_parameters(built(flow)) - count_parameters(built(baseline))
    latent = 4 * 4 * 4  # entries of z for 64 x 64 pictures, each with a row into the mapping network
    assert extra == latent * flow.model.velocity.mapping.width


def test_run_folders_are_named_by_their_options():
    command = compose("train", "experiment=demo", "data.path=a", "seed=3", "paths.runs=elsewhere")
    assert command.run == "elsewhere/demo/flow-learned-seed3"
    assert command.parent == "elsewhere/demo/auxiliary-learned-seed3"


@pytest.mark.parametrize("objective", ["flow_map", "reflow"])
@pytest.mark.parametrize("stage", ["flow", "latent_sampler"])
def test_a_student_is_not_trained_in_the_folder_of_its_teacher(stage, objective):
    command = compose("train", f"stage={stage}", f"stage.objective={objective}", "teacher=a", "data.path=b")
    assert command.run == f"runs/demo/{stage}-learned-{objective}-seed0"
    assert command.parent == "runs/demo/auxiliary-learned-seed0"


def test_the_paper_experiments_of_one_family_find_their_parent_by_default():
    auxiliary = compose("train", "experiment=ffhq256_sdv_auxiliary", "data.path=a")
    flow = compose("train", "experiment=ffhq256_sdv_flow", "data.path=a")
    assert Path(flow.parent) == Path(auxiliary.run)


def test_the_baseline_has_one_stage():
    with pytest.raises(UserError, match=r"prior=gaussian .* has one stage, flow"):
        check_command(compose("train", "experiment=demo", "data.path=a", "stage=auxiliary", "prior=gaussian"))


def test_options_of_a_stage_reach_it():
    command = compose(
        "train", "experiment=smoke", "stage=flow", "prior=gaussian", "stage.exponent=2", "stage.cap=3"
    )
    stage = build_stage(command, None)
    assert (stage.exponent, stage.cap) == (2.0, 3.0)


@pytest.mark.parametrize("experiment", ["demo", "campaign64"])
def test_each_stage_of_an_experiment_can_have_a_weight_decay_of_its_own(experiment):
    changes = ("per_stage.auxiliary.weight_decay=0.3", "per_stage.flow.weight_decay=0.2")
    found = [
        compose(
            "train", f"experiment={experiment}", f"stage={stage}", "data.path=x", *changes
        ).train.weight_decay
        for stage in STAGES
    ]
    assert found == [0.3, 0.2, 0.01]


@pytest.fixture
def loader():
    register_schemas()
    with hydra.initialize_config_dir(str(CONF), job_name="train", version_base="1.3"):
        yield GlobalHydra.instance().config_loader()


@pytest.mark.parametrize(
    "overrides",
    [
        ["experiment=smoke"],
        ["train.images=3", "experiment=demo", "+data.cache.x=1", "stage=flow", "~parent", "hydra.mode=RUN"],
        ["stage=latent_sampler", "stage.label_dropout=0.5", "engine=deepspeed", "data.path='b c'"],
    ],
)
def test_commands_that_tests_run_get_what_hydra_composes(loader, overrides):
    """harness.commands keeps what a choice of files gives; the second call has it from there."""
    expected = loader.load_configuration("train", overrides, RunMode.RUN)
    for _ in range(2):
        found = load_cached(loader, "train", overrides, RunMode.RUN)
        assert OmegaConf.to_yaml(found) == OmegaConf.to_yaml(expected)
        assert OmegaConf.is_struct(found)


@pytest.mark.parametrize(
    "override", ["train.imagse=1", "stage=nothing", "train.images=a,b", "train.images=a", "a"]
)
def test_commands_that_tests_run_are_refused_in_hydras_words(loader, override):
    messages = []
    for load in (loader.load_configuration, lambda *given: load_cached(loader, *given)):
        with pytest.raises(Exception) as refused:
            load("train", ["experiment=smoke", override], RunMode.RUN)
        messages.append(str(refused.value))
    assert messages[0] == messages[1]
