"""Latents of 2 x 2 to 8 x 8 from 64 x 64 pictures, by the options that docs/models.md names."""

import re
from pathlib import Path

import pytest
import torch
from harness.commands import compose, succeed

from lediflow.config.building.models import build_trained_model
from lediflow.config.composition.checks import check_command
from lediflow.errors import UserError

PAGE = Path(__file__).resolve().parents[2] / "docs" / "models.md"
ROW = re.compile(r"^\| (\d) x \1 \| (\d+) \| (?:`([^`]*)`)? ?\|$", re.MULTILINE)
ROWS = [
    (int(side), int(numbers), option.split() if option else [])
    for side, numbers, option in ROW.findall(PAGE.read_text())
]
FOURTH_LEVEL = [
    word
    for word in re.findall(r"'([^'\n]+)'", PAGE.read_text())
    if word.startswith("model.auxiliary.levels=")
]
CASES = [*ROWS, *[(2, 16, [word]) for word in FOURTH_LEVEL]]


def test_the_page_has_every_size():
    assert [side for side, *_ in CASES] == [2, 4, 8, 2]


@pytest.mark.parametrize("experiment", ["demo", "campaign64"])
@pytest.mark.parametrize(("side", "numbers", "options"), CASES)
def test_every_stage_builds_and_computes_with_that_latent(experiment, side, numbers, options):
    models = {}
    for stage in ("auxiliary", "flow", "latent_sampler"):
        command = compose(
            "train", f"experiment={experiment}", f"stage={stage}", "data.path=SHARDS",
            "engine.attention_route=dense", *options,
        )  # fmt: skip
        check_command(command)
        with torch.device("meta"):  # without its memory
            models[stage] = build_trained_model(command).eval()
    channels, z = command.model.channels, torch.zeros(2, 4, side, side, device="meta")
    assert z[0].numel() == numbers
    images, t = torch.zeros(2, channels, 64, 64, device="meta"), torch.zeros(2, device="meta")
    assert models["auxiliary"].encode(images).mean.shape == z.shape
    assert models["auxiliary"].decode(z).mean.shape == images.shape
    assert models["flow"](images, t, z=z).shape == images.shape
    assert models["latent_sampler"](z, t).shape == z.shape


@pytest.mark.slow
def test_the_whole_path_works_with_another_latent(tmp_path):
    """From the auxiliary model to pictures, in small: 8 x 8 of 16 x 16 pictures instead of 4 x 4."""
    runs = {name: f"{tmp_path}/{name}" for name in ("auxiliary", "flow", "latent_sampler")}
    for stage, run in runs.items():
        succeed(
            "train", "experiment=smoke", "engine.device=cpu", f"data.path={tmp_path}/shards", "train.images=32",
            f"stage={stage}", f"run={run}", f"parent={runs['auxiliary']}", "model.auxiliary.halvings=0",
        )  # fmt: skip
    output = tmp_path / "pictures"
    succeed(
        "sample", f"run={runs['flow']}", f"sampler={runs['latent_sampler']}", f"output={output}", "count=2",
        "device=cpu",
    )  # fmt: skip
    assert len(list(output.glob("*.png"))) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["stage=auxiliary", "model.auxiliary.patch_size=32"],
            r"image of 64x64: patches of 32 over 3 levels .*fewer model\.auxiliary\.levels or a smaller",
        ),
        (["stage=auxiliary", "model.auxiliary.halvings=3"], r"choose 0 to 2, or null"),
        (
            [
                "stage=latent_sampler",
                "model.auxiliary.patch_size=8",
                (
                    "model.latent_sampler.levels=[{depth:1,width:32,head_dim:16},{depth:1,width:32,head_dim:16},"
                    "{depth:1,width:32,head_dim:16}]"
                ),
            ],
            r"latent of 2x2: .*multiples of 4; use fewer model\.latent_sampler\.levels, or a larger latent: "
            r"fewer model\.auxiliary\.halvings",
        ),
        (
            [
                "stage=latent_sampler",
                "model.auxiliary.patch_size=8",
                "model.latent_sampler.levels.0.kernel_size=3",
            ],
            r"kernel 3 is wider than its 2x2 token grid; lower .* or start from a larger latent",
        ),
    ],
)
def test_a_latent_that_cannot_be_tiled_is_refused_with_what_to_change(options, message):
    with pytest.raises((UserError, ValueError), match=message):
        check_command(compose("train", "experiment=demo", "data.path=SHARDS", *options))
