"""`--help` shows what to type."""

import pytest
import yaml
from harness.commands import invoke

MENTIONED = {
    "prepare": ["python -m lediflow.prepare", "source:", "output:", "size:", "mode:"],
    "encode": ["python -m lediflow.encode", "codec: pixels, sd2_vae, taesd", "source:", "batch_size:"],
    "train": [
        "python -m lediflow.train", "torchrun --nproc_per_node=2", "hydra/launcher=submitit_slurm",
        "stage: auxiliary, flow, latent_sampler\n", "experiment: campaign64, demo,", "engine: local, deepspeed,",
        "images:", "learning_rate:", "zero:", "prior:", "parent:", "same command again continues",
    ],
    "sample": ["python -m lediflow.sample", "midpoint", "dopri5", "steps:", "temperature:", "count:", "seed:"],
    "evaluate": ["python -m lediflow.evaluate", "images=DIR reference=DIR", "features:", "step_counts:"],
    "edit interpolate": ["lediflow.edit interpolate", "images=[A.jpg,B.jpg]", "space: w", "frames:", "solver:"],
    "edit vary": ["lediflow.edit vary", "keep=x", "count:", "latent_solver:"],
    "edit inpaint": ["lediflow.edit inpaint", "white: repaint", "rectangle:", "z_from:", "dopri5"],
    "edit anonymise": ["lediflow.edit anonymise", "masks:", "key:", "strength: 1.0", "head -c 32 /dev/urandom"],
    "edit attribute": ["lediflow.edit attribute", "with=DIR without=DIR", "strengths:", "space: auto", "direction="],
    "export": ["lediflow.export run=FLOW_RUN", "dtype: float32", "license: null", "results: null"],
    "studio": ["lediflow.studio run=FLOW_RUN", "port: 7860", "host: 127.0.0.1", "seed:", "lediflow[studio]"],
    "submit": ["python -m lediflow.submit", "slurm=PRESET", "pipeline=NAME", "--dry-run", "seed=0,1"],
    "status": ["python -m lediflow.status", "logs NAME --follow", "cancel NAME --save", "resume NAME", "--json"],
    "doctor": ["python -m lediflow.doctor", "--json", "--exclude-file", "2 with faults"],
    "report": ["python -m lediflow.report", "--output", "--title"],
}  # fmt: skip


@pytest.mark.parametrize("command", MENTIONED)
def test_help_mentions_examples_and_the_main_options(command):
    said = invoke(*command.split(), "--help")
    assert said.status == 0
    for phrase in MENTIONED[command]:
        assert phrase in said.out


def test_help_may_be_asked_for_in_front_of_any_command_line():
    said = invoke("sample", "--help", "--cfg", "job", "count=3")
    assert said.status == 0
    assert "\ncount: 3\n" in said.out


def test_the_whole_configuration_can_be_printed():
    said = invoke("train", "experiment=smoke", "stage=auxiliary", "--cfg", "job")
    assert said.status == 0
    assert "name: smoke" in said.out
    assert "half_life_images: 100" in said.out


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["status", "--every", "2"], {"runs": "runs", "every": 2.0, "watch": False}),
        (["report"], {"runs": "???", "csv": False, "output": None}),
        (["report", "a", "b", "--csv"], {"runs": ["a", "b"], "csv": True}),
        (["sync", "a"], {"runs": ["a"], "follow": False}),
        (["doctor"], {"json": False, "exclude_file": None}),
        (
            ["submit", "experiment=smoke", "stage=auxiliary", "data.path=x", "seed=3,1"],
            {"name": "smoke", "seed": 3},
        ),
        (["submit", "command=sample", "run=a", "output=b", "slurm.account=me"], {"run": "a"}),
    ],
)
@pytest.mark.parametrize("flag", [["--cfg", "job"], ["--cfg=job"]])
def test_commands_with_flags_print_their_options(words, shown, flag):
    said = invoke(*words, *flag)
    assert said.status == 0
    options = yaml.safe_load(said.out)
    assert {name: options[name] for name in shown} == shown
    if "slurm.account=me" in words:
        assert options["slurm"]["account"] == "me"


def test_a_pipeline_has_several_configurations():
    said = invoke("submit", "pipeline=smoke", "--cfg", "job")
    assert said.status == 2
    assert "--dry-run shows them" in said.err
