"""Options that have no effect in their combination are named on stderr, instead of being ignored."""

from dataclasses import is_dataclass
from typing import get_type_hints

import pytest
from harness.commands import compose_raw, invoke

from lediflow.config.composition.idle_options import IDLE, idle_options
from lediflow.config.composition.schema import COMMANDS
from lediflow.stages import STAGES

SMOKE = ("experiment=smoke",)
AUXILIARY, FLOW = (*SMOKE, "stage=auxiliary"), (*SMOKE, "stage=flow")


def found(command, *overrides):
    return idle_options(command, compose_raw(command, *overrides), overrides)


@pytest.mark.parametrize(
    ("command", "others", "idle", "reason"),
    [
        ("train", AUXILIARY, "parent=x", "no auxiliary model"),
        ("train", (*FLOW, "prior=gaussian"), "stage.exponent=0.5", "no sigma"),
        ("train", FLOW, "stage.sampled_share=0.5", "sampler=RUN"),
        ("train", FLOW, "stage.teacher_steps=2", "stage.objective=reflow"),
        ("train", (*FLOW, "stage.objective=meanflow"), "stage.teacher_pairs=2", "flow_map"),
        ("train", FLOW, "stage.time_sd=2", "logit_normal"),
        ("train", FLOW, "model.velocity.is_flow_map=true", "stage.objective"),
        ("train", AUXILIARY, "engine.zero=2", "engine=deepspeed"),
        ("train", AUXILIARY, "data.augment.rotation=false", r"data.augment.probability=0"),
        ("train", (*AUXILIARY, "train.pictures.every_images=0"), "train.pictures.codec_path=x", "no pictures"),
        ("train", ("experiment=demo", "stage=auxiliary"), "per_stage.flow.images=5", "another stage"),
        ("encode", ("codec=pixels",), "codec.path=x", "codec=pixels"),
        ("sample", ("solver=dopri5",), "steps=7", "its own steps"),
        ("sample", (), "latent_steps=3", "no latent sampler"),
        ("evaluate", ("mode=grid",), "step_counts=[1]", "grid.steps"),
        ("evaluate", ("mode=prior",), "solver=euler", "no images"),
        ("evaluate", ("images=x", "reference=y"), "count=9", "finished pictures"),
        ("evaluate", (), "grid.steps=[1]", "mode=grid"),
        ("evaluate", ("watch=x",), "mode=grid", "modes of their own"),
        ("evaluate", ("watch=x",), "images=y", "checkpoints of that run"),
        ("edit_anonymise", ("masks=x",), "margin=2", "masks="),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_an_option_without_an_effect_is_named_with_the_reason(command, others, idle, reason):
    (sentence,) = found(command, *others, idle)
    assert sentence.startswith(f"{idle} has no effect: ")
    assert reason in sentence


@pytest.mark.parametrize(
    ("command", "overrides"),
    [
        ("train", (*AUXILIARY, "train.images=5", "engine=deepspeed", "engine.zero=2", "stage.beta=2")),
        ("train", (*FLOW, "parent=x", "stage.exponent=0", "stage.prior_widening=0")),
        ("train", (*FLOW, "stage.objective=flow_map", "sampler=x", "stage.sampled_share=0.2")),
        ("train", ("experiment=demo", "stage=flow", "per_stage.flow.images=5")),
        ("train", (*FLOW, "stage.time=stratified", "stage.time_strata=8")),
        ("encode", ("codec=sd2_vae", "codec.path=x", "dtype=float32")),
        ("sample", ("sampler=x", "latent_steps=3", "steps=4")),
        ("evaluate", ("run=x", "sampler=y", "data.path=z", "step_counts=[1]", "count=9")),
        ("sample", ("solver=dopri5", "steps=0")),
        ("evaluate", ("watch=x", "run=y", "mode=metrics")),  # the flow of a watched latent sampler
        ("edit_anonymity", ("masks=x", "certainty=0.5")),
        ("evaluate", ("mode=stages", "run=x", "sampler=y", "grid.steps=[1]", "temperature=0.5")),
    ],
)
def test_options_with_an_effect_are_not_named(command, overrides):
    assert found(command, *overrides) == []


def test_every_option_of_the_table_exists():
    for command, rules in IDLE.items():
        for option in {name for rule in rules for name in rule.options}:
            group, _, rest = option.partition(".")
            kinds = [kind.options for kind in STAGES.values()] if group == "stage" else [COMMANDS[command]]
            assert any(has(kind, rest if group == "stage" else option) for kind in kinds), option


def has(kind, option):
    """Whether a dataclass has this dotted option; a mapping has any."""
    name, _, rest = option.partition(".")
    field = get_type_hints(kind).get(name)
    return field is not None and (not rest or not is_dataclass(field) or has(field, rest))


def test_the_warning_comes_before_the_work():
    said = invoke("sample", "run=/nowhere", "solver=dopri5", "steps=7")
    assert said.err.startswith("warning: steps=7 has no effect: this solver chooses its own steps\nerror: ")
