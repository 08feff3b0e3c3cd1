"""A stage is added by one entry of the table: it trains, is exported, planned, sampled, measured and reported.

What the shipped stages declare besides, an added stage can declare too: a widened prior, images that are encoded once,
a loss that grows at first, and a check of its own.
"""

import json
import math
import re
from dataclasses import dataclass

import pytest
import torch
from harness.commands import compose, invoke, succeed
from hydra.core.config_store import ConfigStore

from lediflow.config.dry_run.cost import work_of
from lediflow.errors import UserError
from lediflow.evaluation.logged import logged_values
from lediflow.evaluation.modes.watch import evaluation_of
from lediflow.flow.gaussians import sample, widen
from lediflow.flow.path import TimeConfig
from lediflow.models import VelocityModel, load_as
from lediflow.ranges import bounded, check_ranges
from lediflow.report.runs import read_run
from lediflow.report.training import loss_panels
from lediflow.stages import STAGES, LossCurve, StageKind
from lediflow.stages.bins import by_time
from lediflow.stages.draws import draw_latents
from lediflow.stages.flow import velocity_spec
from lediflow.stages.latent_sampler import LatentSamplerStage
from lediflow.stages.protocol import AUTO, LossWarmup, given_width, stage_loss
from lediflow.tracking.event_log import standing_events
from lediflow.tracking.metrics import LOSS, neutral, unknown_names


@dataclass(kw_only=True)
class ArcConfig:
    """Options of stage=arc."""

    name: str = "arc"
    quantile: float = bounded(1.0, above=0, at_most=1)  # largest time that is trained
    error: str = "square"  # square | absolute
    prior_widening: int | float | str = bounded(AUTO, at_least=0, or_word=AUTO)
    prior_scale: int | float | str = bounded(AUTO, above=0, or_word=AUTO)

    def __post_init__(self) -> None:
        check_ranges(self, "stage.")


class ArcStage:
    """A flow along the arc cos(pi t / 2) x + sin(pi t / 2) y instead of the straight path."""

    name = "arc"

    def __init__(self, config, auxiliary):
        self.config, self.auxiliary, self.width = config, auxiliary, given_width(config)

    def loss(self, module, batch, noise):
        y = batch.images
        with torch.no_grad():
            z = draw_latents(self.auxiliary, batch, noise)
            prior = self.auxiliary.decode(z)
            logvar = widen(prior.logvar, self.width.added, self.width.scale)
            x = sample(prior.mean, logvar, noise.normal(batch.ids, "arc start", tuple(y.shape[1:])))
        t = self.config.quantile * noise.uniform(batch.ids, "arc time")
        angle = (math.pi / 2 * t).view(-1, 1, 1, 1)
        velocity = math.pi / 2 * (angle.cos() * y - angle.sin() * x)
        error = module(angle.cos() * x + angle.sin() * y, t, z=z) - velocity
        per_sample = (error.abs() if self.config.error == "absolute" else error.square()).flatten(1).mean(1)
        return stage_loss(
            per_sample, {"arc_speed": velocity.square().mean()}, {"loss_by_time": by_time(per_sample, t)}
        )


ARC = StageKind(
    options=ArcConfig,
    build=lambda command, auxiliary: ArcStage(command.stage, auxiliary),
    trains="velocity",
    spec=velocity_spec,
    calls=("encoder", "decoder"),
    widens_prior=True,
    place="flow",
    curve=LossCurve(title="Arc", caption="Squared error of the velocity along the arc"),
    values={"arc_speed": neutral(LOSS, "squared speed along the arc")},
)


@dataclass(kw_only=True)
class RampConfig(TimeConfig):
    """Options of stage=ramp: the latent sampler, with a loss that grows over the first images."""

    name: str = "ramp"
    encode_once: bool | None = None
    ramp_images: int = bounded(0, at_least=0)


def refuse_seed_13(command):
    if command.seed == 13:
        raise UserError("stage=ramp does not train with seed=13; choose another")


RAMP = StageKind(
    options=RampConfig,
    build=lambda command, auxiliary: LatentSamplerStage(command.stage, auxiliary),
    trains="latent_sampler",
    calls=("encoder",),
    on_latents=True,
    check=refuse_seed_13,
    can_encode_once=True,
    warmup=LossWarmup(option="ramp_images", grows="the ramp"),
    place="latent_sampler",
)


@pytest.fixture(scope="module")
def added():
    """The table with the entries of this file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(STAGES, "arc", ARC)
        patch.setitem(STAGES, "ramp", RAMP)
        yield
    # Hydra's store lasts as long as the process
    for name in ("arc.yaml", "arc_schema.yaml", "ramp.yaml", "ramp_schema.yaml"):
        ConfigStore.instance().repo["stage"].pop(name, None)


def command(trained, run, *options, stage="arc"):
    return (
        "train", "experiment=smoke", f"stage={stage}", "synthetic_images=0", f"data.path={trained.latents}",
        "engine.device=cpu", "train.images=64", f"parent={trained.auxiliary}", f"run={run}", *options,
    )  # fmt: skip


@pytest.fixture(scope="module")
def arc(added, trained, tmp_path_factory):
    run = tmp_path_factory.mktemp("arc") / "run"
    succeed(*command(trained, run, "stage.quantile=0.9", "tracking=tensorboard"))
    return run


def test_it_trains_with_its_options_and_exports_a_model(arc):
    facts = json.loads((arc / "export" / "config.json").read_text())
    assert facts["stage"] == "arc" and facts["images_seen"] == 64
    expected = {
        "name": "arc",
        "quantile": 0.9,
        "error": "square",
        "prior_widening": AUTO,
        "prior_scale": AUTO,
    }
    assert facts["identity"]["stage"] == expected
    assert load_as(VelocityModel, arc / "export").spec.latent_dim > 0  # conditioned on z, by `spec`


def test_the_same_command_finds_it_finished_and_other_options_are_refused(arc, trained):
    assert "nothing to do" in succeed(*command(trained, arc, "stage.quantile=0.9")).err
    said = invoke(*command(trained, arc, "stage.quantile=0.8"))
    assert said.status == 2 and "quantile" in said.err
    said = invoke(*command(trained, arc.parent / "other", "stage.quantile=2"))
    assert said.status == 2 and "stage.quantile" in said.err


def test_a_dry_run_counts_its_work(added, trained, tmp_path):
    said = succeed(*command(trained, tmp_path / "none", "--dry-run"))
    assert said.out.startswith("arc (learned prior)") and "in the frozen parent" in said.out
    # a step does what a step of the flow does, on another path
    ours, theirs = (
        work_of(compose(*command(trained, tmp_path / "none", f"stage={name}")), 1) for name in ("arc", "flow")
    )
    assert ours.flops == theirs.flops and ours.frozen == theirs.frozen
    assert ours.frozen.flops > 0 and ours.parameters == theirs.parameters


def test_the_width_of_its_prior_is_measured_once_and_exported(arc, added, trained, tmp_path):
    facts = json.loads((arc / "export" / "config.json").read_text())
    measured = json.loads((arc / "prior_width.json").read_text())
    assert facts["prior_widening"] == measured["prior_widening"] > 0 and facts["prior_scale"] == 3
    said = succeed(*command(trained, tmp_path / "none", "stage.prior_widening=0.25", "--dry-run"))
    assert re.search(r"width added to the prior +0\.25", said.out)


@pytest.mark.parametrize("encodes_once", [True, False])
def test_a_stage_on_latents_that_encodes_once_needs_no_encoder_in_a_step(
    added, trained, tmp_path, encodes_once
):
    options = command(trained, tmp_path / "none", f"stage.encode_once={encodes_once}", stage="ramp")
    assert (work_of(compose(*options), 1).frozen.flops == 0) is encodes_once


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            ["data.augment.probability=0.1", "model.latent_sampler.augmentation=true", "stage.encode_once=true"],
            "an image differs each time it is seen; leave stage.encode_once out",
        ),
        (
            ["train.export=best", "data.held_out_fraction=0.2", "stage.ramp_images=64"],
            "stage.ramp_images=64: the ramp would still grow at the end (train.images=64)",
        ),
        (["seed=13"], "stage=ramp does not train with seed=13"),
    ],
)  # fmt: skip
def test_options_that_go_against_its_declaration_are_refused(added, trained, tmp_path, options, words):
    said = invoke(*command(trained, tmp_path / "none", *options, stage="ramp"))
    assert said.status == 2 and words in said.err


def test_a_file_in_a_folder_of_the_user_gives_it_other_defaults(added, trained, tmp_path):
    (tmp_path / "stage").mkdir()
    (tmp_path / "stage" / "short_arc.yaml").write_text("defaults: [arc_schema, _self_]\nquantile: 0.25\n")
    options = command(trained, tmp_path / "none")
    assert "quantile: 1.0" in succeed(*options, "--cfg", "job").out
    said = succeed(*options, "stage=short_arc", f"--config-dir={tmp_path}", "--cfg", "job")
    assert "name: arc\n" in said.out and "quantile: 0.25" in said.out


def test_its_runs_take_the_place_of_a_flow(arc, trained, tmp_path):
    runs = (f"run={arc}", f"sampler={trained.sampler}", "device=cpu")
    succeed("sample", *runs, "count=2", "solver=heun3", f"output={tmp_path}/pictures")
    assert len(list((tmp_path / "pictures").glob("*.png"))) == 2
    assert evaluation_of("arc") is evaluation_of("flow")


def test_the_report_shows_its_loss(arc, trained, tmp_path):
    (panel,) = loss_panels([read_run(arc)])
    assert panel.title == "Arc" and len(panel.curves["training"].values) > 0
    succeed("report", arc, trained.auxiliary, "--output", f"{tmp_path}/report.html")
    page = (tmp_path / "report.html").read_text()
    assert page.index("Auxiliary model") < page.index("Squared error of the velocity along the arc")


def test_the_values_that_it_declares_have_an_entry_in_training_and_on_held_out_samples(arc, added):
    assert unknown_names(standing_events(arc / "events.jsonl")) == ["train/arc_speed"]
    assert unknown_names(standing_events(arc / "events.jsonl"), logged_values("arc")) == []
    assert logged_values()["validation/arc_speed"].title == "held-out squared speed along the arc"
    (shown,) = (arc / "tensorboard").iterdir()
    assert b"squared speed along the arc" in shown.read_bytes()  # the description of its curve


def test_undeclared_options_are_refused_with_the_known_ones(added, trained, tmp_path):
    said = invoke(*command(trained, tmp_path / "none", "prior=gaussian"))
    assert said.status == 2 and "has one stage, flow; stage=arc" in said.err
    said = invoke(*command(trained, tmp_path / "none", "stage.name=bow"))
    assert (
        said.status == 2
        and "stage=bow is unknown; use one of auxiliary, flow, latent_sampler, arc, ramp" in said.err
    )


def test_without_the_entry_its_runs_are_refused_by_name(arc, trained, tmp_path, monkeypatch):
    monkeypatch.delitem(STAGES, "arc")
    said = invoke("sample", f"run={arc}", f"sampler={trained.sampler}", "count=1", f"output={tmp_path}/none")
    assert said.status == 2 and "is a run of stage=arc; give a run of stage=flow" in said.err
