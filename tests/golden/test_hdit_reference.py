"""The hourglass equals k-diffusion's `image_transformer_v2`: outputs and gradients, by the golden files of this folder.

They were computed by the reference in float64 and stored in float32, which is what the float64 tolerance covers;
the float32 tolerance covers rounding through some ten layers.
"""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from lediflow.models.convert import from_k_diffusion, our_name, to_k_diffusion

HERE = Path(__file__).parent
CASES = ["hdit_a", "hdit_b"]
ROUTES = ["auto", "dense", "sdpa"]  # of those that have a backward pass on CPUs
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-6}


def load(case, dtype):
    with safe_open(HERE / f"{case}.safetensors", "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = file.metadata()
    return {k: v.to(dtype) if v.is_floating_point() else v for k, v in tensors.items()}, metadata


def below(prefix, tensors):
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def relative_error(found, expected):
    return ((found - expected).norm() / expected.norm()).item()


def run(module, golden):
    inputs = {name: golden.get(name) for name in ("labels", "conditioning", "augmentation")}
    return module(golden["x"], golden["time"], **inputs)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("case", CASES)
def test_output_is_the_references(case, route, dtype):
    golden, metadata = load(case, dtype)
    module = from_k_diffusion(below("weights.", golden), metadata, attention_route=route)
    assert relative_error(run(module, golden), golden["y"]) < TOLERANCE[dtype]


@pytest.mark.parametrize("route", ["natten", "flex"])
@pytest.mark.parametrize("case", CASES)
def test_output_of_the_routes_that_only_go_forward_is_the_references(case, route):
    golden, metadata = load(case, torch.float32)
    module = from_k_diffusion(below("weights.", golden), metadata, attention_route=route)
    with torch.no_grad():
        assert relative_error(run(module, golden), golden["y"]) < TOLERANCE[torch.float32]


def first_image(golden):
    """The first image of the batch: its output and the gradient of its pixels depend on no other image."""
    names = ("x", "time", "labels", "conditioning", "augmentation", "cotangent", "y", "grad_x")
    return golden | {name: golden[name][:1] for name in names if name in golden}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_output_and_gradients_by_triton_kernels_are_the_references(case, interpreted):
    golden, metadata = load(case, torch.float32)
    golden = {name: value.to(interpreted) for name, value in golden.items()}
    # gradients of weights are sums over the batch; the interpreter takes seconds an image
    is_whole = case == "hdit_b"
    golden = golden if is_whole else first_image(golden)
    module = from_k_diffusion(below("weights.", golden), metadata, attention_route="triton")
    golden["x"].requires_grad_()
    y = run(module, golden)
    y.backward(golden["cotangent"])
    assert relative_error(y, golden["y"]) < TOLERANCE[torch.float32]
    assert relative_error(golden["x"].grad, golden["grad_x"]) < TOLERANCE[torch.float32]
    parameters = dict(module.named_parameters())
    for name, expected in below("grad.", golden).items() if is_whole else ():
        assert relative_error(parameters[our_name(name)].grad, expected) < TOLERANCE[torch.float32], name


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("case", CASES)
def test_gradients_are_the_references(case, route, dtype):
    golden, metadata = load(case, dtype)
    module = from_k_diffusion(below("weights.", golden), metadata, attention_route=route)
    golden["x"].requires_grad_()
    run(module, golden).backward(golden["cotangent"])
    assert relative_error(golden["x"].grad, golden["grad_x"]) < TOLERANCE[dtype]
    parameters = dict(module.named_parameters())
    for name, expected in below("grad.", golden).items():
        assert relative_error(parameters[our_name(name)].grad, expected) < TOLERANCE[dtype], name


@pytest.mark.parametrize("case", CASES)
def test_weights_return_to_the_references_names_unchanged(case):
    golden, metadata = load(case, torch.float32)
    weights = below("weights.", golden)
    returned, returned_metadata = to_k_diffusion(from_k_diffusion(weights, metadata))
    assert {k: json.loads(v) for k, v in returned_metadata.items()} == {
        k: json.loads(v) for k, v in metadata.items()
    }
    assert returned.keys() == weights.keys()
    for name, weight in weights.items():
        torch.testing.assert_close(returned[name], weight)


def test_other_rotary_frequencies_are_refused():
    golden, metadata = load("hdit_a", torch.float32)
    weights = below("weights.", golden)
    weights["mid_level.0.self_attn.pos_emb.freqs"] *= 2
    with pytest.raises(ValueError, match=r"mid_level\.0.*rotary frequencies"):
        from_k_diffusion(weights, metadata)
