"""The printed tree: every part in its place, with its own number of parameters."""

import re

import pytest
import torch
from harness.commands import compose

from lediflow.config.building.stage import build_trained_model
from lediflow.models import build_model, count_parameters, describe_model

SMOKE_FLOW = """\
VelocityModel                                                                                   39,671
└─ hourglass                                                                                    39,671
   ├─ condition       time + vector of 32 -> width 32, depth 1                                  11,360
   ├─ patch_in        merge 2x2, 4 -> 16                                                            64
   ├─ down_levels[0]  tokens of 2x2, width 16, 2 heads x 8, kernel 3, depth 1, feed-forward 48   4,354
   ├─ merges[0]       merge 2x2, 64 -> 32                                                        2,048
   ├─ mid_level       tokens of 4x4, width 32, 2 heads x 16, global, depth 1, feed-forward 96   15,362
   ├─ splits[0]       split 2x2, 32 -> 64                                                        2,049
   ├─ up_levels[0]    tokens of 2x2, width 16, 2 heads x 8, kernel 3, depth 1, feed-forward 48   4,354
   ├─ out_norm                                                                                      16
   └─ patch_out       split 2x2, 16 -> 4                                                            64"""


def smoke_model(stage):
    return build_trained_model(compose("train", "experiment=smoke", f"stage={stage}", "data.path=a"))


def leaves(tree):
    """(indent, parameters) of the lines that have none below them."""
    lines = tree.splitlines()
    depths = [re.match(r"[│ ├└─]*", line).end() for line in lines]
    numbers = [int(line.split()[-1].replace(",", "")) for line in lines]
    return [
        number
        for number, depth, following in zip(numbers, depths, [*depths[1:], 0], strict=True)
        if following <= depth
    ]


def test_the_smoke_models_flow_is_drawn_like_this():
    assert describe_model(smoke_model("flow")) == SMOKE_FLOW


def test_a_levels_parameters_are_those_of_its_formula():
    """Width w, condition c, feed-forward d: two norms of w c, attention 4 w^2 + heads, feed-forward 3 w d."""
    w, c, d, heads = 32, 32, 96, 2
    line = next(line for line in SMOKE_FLOW.splitlines() if "mid_level" in line)
    assert int(line.split()[-1].replace(",", "")) == 2 * w * c + 4 * w**2 + heads + 3 * w * d


@pytest.mark.parametrize("stage", ["auxiliary", "flow", "latent_sampler"])
def test_the_parts_add_up_to_the_model(stage):
    model = smoke_model(stage)
    assert sum(leaves(describe_model(model))) == count_parameters(model)


def test_a_decoder_is_drawn_from_coarse_to_fine(auxiliary_spec):
    auxiliary_spec.halvings = 0
    lines = describe_model(build_model(auxiliary_spec)).splitlines()
    widths = [
        re.search(r"tokens of (\dx\d), width (\d+)", line).groups() for line in lines if "width" in line
    ]
    assert widths == [("2x2", "16"), ("2x2", "32"), ("2x2", "32"), ("2x2", "16")]


def test_the_map_of_latent_tokens_is_shown(velocity_spec):
    velocity_spec.conditioning = "tokens"
    with torch.device("meta"):
        assert re.search(
            r"└─ latent_in +4 -> 32 +128$", describe_model(build_model(velocity_spec)), re.MULTILINE
        )
