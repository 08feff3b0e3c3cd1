"""What cannot be done is refused with status 2 and a sentence that says what to do; never with a traceback."""

import contextlib
import io
import re

import pytest
import torch
from harness.commands import compose_raw, invoke, logging_restored

from lediflow import train
from lediflow.config.composition.command_line import exiting_with_status
from lediflow.flow.solvers import solve

REFUSED = 2
SMOKE = ("train", "experiment=smoke", "engine.device=cpu")


def refusal(*command):
    said = invoke(*command)
    assert said.status == REFUSED, said.err
    assert "Traceback" not in said.err
    return said.err


def task_refusal(*command):
    """As `refusal`, from the task on: Hydra's part of the way is the same for all options that compose."""
    name, *overrides = command
    err = io.StringIO()
    with logging_restored(), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as end:
        exiting_with_status(train.run)(compose_raw(name, *overrides))
    assert end.value.code == REFUSED, err.getvalue()
    return err.getvalue()


def assert_says(text, *phrases):
    for phrase in phrases:
        assert re.search(phrase, text, re.DOTALL), f"{phrase!r} is not in: {text}"


@pytest.mark.parametrize(
    ("command", "nearest"),
    [
        (("train", "train.imges=3"), r"'train\.imges'.*nearest valid names: train\.images"),
        (("train", "engine.zreo=2"), r"nearest valid names: engine\.zero"),
        (("train", "experiment=smok"), "nearest valid names: smoke"),
        (("train", "stage=flwo"), "nearest valid names: flow"),
        (("train", "experiment=smoke", "engine=deepsped"), "nearest valid names: deepspeed"),
        (
            ("train", "experiment=smoke", "stage=auxiliary", "stage.cap=3"),
            r"'stage\.cap'.*is an option of stage=flow",
        ),
        (
            ("train", "experiment=smoke", "stage=auxiliary", "stage.bta=3"),
            r"nearest valid names: stage\.beta",
        ),
        (("encode", "codec=pixel"), "nearest valid names: pixels"),
        (("sample", "stpes=3"), "nearest valid names: steps"),
        (("evaluate", "features.nmae=x"), r"nearest valid names: features\.name"),
        (("prepare", "siz=3"), "nearest valid names: size"),
        (("evaluate", "features=inception"), "features is a group of options; set one of features.name, "),
        (("evaluate", "step_counts=4"), r"step_counts=4 is not a list; write 'step_counts=\[4\]'"),
        (("sample", "run=x", "solver=rk5"), "did you mean 'rk4'"),
        (("prepare", "--size=3"), r"--size is not a flag.* as in size=3"),
        (("train", "--dryrun"), r"--dryrun is not a flag.* did you mean --dry-run\?"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_mistyped_name_is_answered_with_the_nearest_that_exists(command, nearest):
    assert_says(refusal(*command), nearest)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (("train", "experiment=demo", "stage=auxiliary"), r"data\.path has no value; .*data\.path=\.\.\."),
        (("prepare",), r"source has no value.*source=\.\.\."),
        (("sample",), r"run has no value.*run=\.\.\."),
        (("encode", "source=x"), r"output has no value"),
        (("evaluate",), r"run=FLOW_RUN .* or images=DIR with reference=DIR"),
        (("evaluate", "runs={a:[b]}", "data.path=x"), "runs= is an option of mode=grid only"),
        (("evaluate", "mode=grid", "runs=x", "data.path=y"), r"runs=x is not a mapping; write 'runs=\{NAME"),
        (("evaluate", "mode=grid", "runs={a:b}", "data.path=y"), r"runs\.a=b: give \[FLOW_RUN,SAMPLER_RUN\]"),
        (("evaluate", "--watch"), "--watch has no value; give it one: --watch RUN"),
        (("evaluate", "mode=compare", "results=[/a,/b]"), r"/a has no results\.json; give folders that"),
        (("report",), "required: RUN"),
        (
            (*SMOKE, "stage=auxiliary", "+train.imagess=5"),
            r"\+train\.imagess: there is no option train\.imagess",
        ),
        ((*SMOKE, "stage=auxiliary", "synthetic_images=0", "data.path="), r"data\.path= is empty"),
        ((*SMOKE, "train.images=many"), r"'many' .*train\.images"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_missing_option_or_one_of_another_type_is_named(command, message):
    assert_says(refusal(*command), message)


def test_a_solver_that_does_not_arrive_ends_a_command_with_a_sentence(capsys):
    def task(config):
        solve(lambda x, t: 40 * x, torch.ones(1), solver="dopri5", max_steps=2)

    with pytest.raises(SystemExit) as end:
        exiting_with_status(task)(None)
    assert end.value.code == REFUSED
    assert_says(
        capsys.readouterr().err,
        r"error: dopri5 .*after max_steps = 2 steps.*latent_solver= and latent_steps=",
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["prior=laplace"], r"prior='laplace' is unknown; use one of learned, gaussian"),
        (["seed=-1"], r"seed=-1 must be at least 0"),
        (["engine.name=jax"], r"engine\.name='jax' is unknown; use engine=local or engine=deepspeed"),
        (["engine.precision=fp8"], r"use auto, float32 or bfloat16"),
        (["engine.attention_route=sdap"], r"known are auto, dense, sdpa, triton.*did you mean 'sdpa'"),
        (["engine.attention_route=natten"], r"natten has no backward pass on CPUs; fix that, or use route"),
        (["engine.float8=true", "engine.precision=float32", "dry_run=true"], r"engine\.precision is float32"),
        (
            ["engine=deepspeed", "engine.cuda_graphs=true", "dry_run=true"],
            r"cuda_graphs=true does not go with",
        ),
        (
            [
                "stage=flow",
                "prior=gaussian",
                "stage.coupling=optimal_transport",
                "engine.cuda_graphs=true",
                "dry_run=true",
            ],
            r"cuda_graphs=true records the passes.*wait for the CPU.*leave it at null",
        ),
        (
            ["stage=latent_sampler", "stage.objective=flow_map", "teacher=x"],
            r"a flow map uses its first time.*levels\[0\]\.depth to 2 or more",
        ),
        (["engine.compile_mode=fast"], r"engine\.compile_mode='fast' is unknown; use one of default"),
        (["prior=learned", "stage=flow", "stage.coupling=optimal_transport"], r"needs prior=gaussian"),
        (
            ["stage=flow", "prior=gaussian", "stage.prior_widening=0.3"],
            r"widens the learned prior.*leave.*at 0",
        ),
        (
            ["stage=flow", "prior=gaussian", "stage.prior_scale=3"],
            r"stage\.prior_scale=3.* widens the learned",
        ),
        (["stage=flow", "stage.prior_widening=-0.3"], r"stage\.prior_widening=-0\.3 must be"),
        (["stage=flow", "stage.prior_widening=nan"], r"stage\.prior_widening=nan must be"),
        (
            [
                "train.export=best",
                "data.held_out_fraction=0.2",
                "stage=auxiliary",
                "stage.beta_warmup_images=500",
            ],
            r"beta would still grow at the end \(train\.images=192\).*shorten the warm-up",
        ),
        (["engine.micro_batch=3"], r"use a divisor of 16"),
        (["model.channels=3", "synthetic_images=0"], r"holds samples .*1x16x16.*set model\.channels=1"),
        (["model.image_size=18", "synthetic_images=0"], r"18"),
        (["data.held_out_fraction=1.0"], "leaves none"),
        (["train.export=first"], r"train\.export='first' is unknown; use one of last, best"),
        (
            ["train.export=best"],
            r"train\.export=best needs.*held_out_fraction=0 holds out no samples; set data",
        ),
        (
            ["train.patience_images=64", "data.held_out_fraction=0.5", "train.validation.every_images=0"],
            r"patience_images=64 needs.*every_images=0 never computes it; set train\.validation\.every_images=null",
        ),
        (
            ["train.export=best", "data.held_out_fraction=1e-9"],
            r"train\.export=best asks.*holds out none.*raise data\.held_out_fraction, or leave the option out",
        ),
        (
            ["train.patience_images=16", "data.held_out_fraction=0.5"],
            r"still rises \(train\.schedule\.warmup_images=32\); raise the patience, or shorten the warm-up",
        ),
        (["run=/dev/null/run"], r"run=/dev/null/run cannot be written.*choose another run="),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_invalid_options_are_refused_with_a_valid_one(options, message, trained, tmp_path):
    smoke = (
        *SMOKE,
        "stage=auxiliary",
        f"data.path={trained.latents}",
        "synthetic_images=0",
        f"run={tmp_path}/run",
    )
    assert_says(task_refusal(*smoke, *options), message)
    # routes depend on the device, held-out samples on the run's stream: looked at when its folder exists
    is_late = any(
        option.startswith(("engine.attention_route=", "data.held_out_fraction=")) for option in options
    )
    assert is_late or not (tmp_path / "run").exists()


def test_missing_data_is_reported_with_the_command_that_makes_it(tmp_path):
    said = refusal(
        *SMOKE, "stage=auxiliary", "synthetic_images=0", f"data.path={tmp_path}/none", f"run={tmp_path}/run"
    )
    assert_says(said, f"{tmp_path}/none", r"python -m lediflow\.prepare")


@pytest.mark.parametrize("stage", ["flow", "latent_sampler"])
def test_a_missing_parent_is_named_with_the_command_that_trains_it(stage, tmp_path):
    said = refusal(*SMOKE, f"stage={stage}", f"parent={tmp_path}/none", f"run={tmp_path}/run")
    assert_says(
        said, f"{tmp_path}/none, but there is no run there", r"python -m lediflow\.train .*stage=auxiliary"
    )
    assert not (tmp_path / "run").exists()


def test_a_parent_of_another_kind_is_refused(trained, tmp_path):
    said = refusal(*SMOKE, "stage=flow", f"parent={trained.flow}", f"run={tmp_path}/run")
    assert_says(said, "holds a model of class VelocityModel.*give the run of stage=auxiliary")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("seed=1", r"\(seed: 0, now 1\)"),
        ("prior=gaussian", "prior: learned, now gaussian"),
        ("stage.exponent=0.5", r"\(stage\.exponent: 1\.0, now 0\.5\)"),
        ("stage.prior_widening=0.3", r"\(stage\.prior_widening: .*, now 0\.3\)"),
        (
            "model.velocity.levels.0.dropout=0.1",
            r"model\.velocity\.levels\.0\.dropout: nothing, now 0\.1",
        ),
        ("train.global_batch=32", r"\(global_batch: 16, now 32\)"),
        ("model.velocity.levels.0.depth=2", r"model\.velocity\.levels\.0\.depth: 1, now 2"),
    ],
)
@pytest.mark.parametrize("images", [64, 96], ids=["finished", "to be continued"])
def test_runs_are_distinguished_by_their_identity(trained, change, named, images):
    said = task_refusal(*trained.commands["flow"], f"train.images={images}", change)
    assert_says(said, named, "another run=")


def test_a_refused_command_leaves_the_run_folder_as_it_was(trained):
    """But for the lease, which says who looked last."""

    def files():
        paths = [path for path in trained.flow.rglob("*") if path.is_file() and path.name != "lease.json"]
        return {path: path.read_bytes() for path in paths}

    before = files()
    refusal(*trained.commands["flow"], "train.images=96", "seed=1")
    assert files() == before


class TestSampling:
    """Runs that do not belong together."""

    def test_a_learned_prior_needs_its_sampler(self, trained):
        assert_says(refusal("sample", f"run={trained.flow}"), r"sampler=RUN_DIR")

    def test_the_baseline_refuses_a_sampler(self, trained):
        said = refusal("sample", f"run={trained.baseline}", f"sampler={trained.sampler}")
        assert_says(said, "leave sampler= out")

    def test_a_run_of_another_stage_is_refused_as_flow(self, trained):
        assert_says(
            refusal("sample", f"run={trained.auxiliary}"), "stage=auxiliary; give a run of stage=flow"
        )

    @pytest.mark.parametrize("stage", ["auxiliary", "flow"])
    def test_a_run_of_another_stage_is_refused_as_sampler(self, trained, stage):
        said = refusal("sample", f"run={trained.flow}", f"sampler={trained.root}/{stage}")
        assert_says(said, f"{stage} is a run of stage={stage}; give a run of stage=latent_sampler")

    def test_a_missing_run_is_named(self, tmp_path):
        assert_says(refusal("sample", f"run={tmp_path}/none"), f"{tmp_path}/none, but there is no run there")

    def test_models_of_different_parents_are_refused(self, trained, tmp_path):
        config = (trained.sampler / "export" / "config.json").read_text()
        weights = (trained.sampler / "export" / "model.safetensors").read_bytes()
        pinned = re.search(r'"path": ".*?/auxiliary",\s+"sha256": "(\w+)"', config)[1]
        export = tmp_path / "export"
        export.mkdir()
        (export / "config.json").write_text(config.replace(pinned, "0" * 64))
        (export / "model.safetensors").write_bytes(weights)
        said = refusal("sample", f"run={trained.flow}", f"sampler={tmp_path}")
        assert_says(said, pinned[:12], "000000000000", "use runs of one parent")
