"""What `precision` means on which device."""

import pytest
import torch
from torch import nn

from lediflow.engine import precision
from lediflow.engine.precision import choose_precision, chosen_compile_mode, computing_in, resolved
from lediflow.engine.protocol import EngineConfig
from lediflow.errors import UserError

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("abilities", "chosen"),
    [
        ({}, "float32"),
        ({"avx512_bf16": True}, "bfloat16"),
        ({"amx_bf16": True}, "bfloat16"),
        ({"avx2": True}, "float32"),
    ],
)
def test_auto_is_bfloat16_only_where_the_processor_multiplies_in_it(monkeypatch, abilities, chosen):
    monkeypatch.setattr(precision.torch.cpu, "get_capabilities", lambda: abilities)
    assert choose_precision("auto", CPU) == chosen


@pytest.mark.parametrize("asked", ["float32", "bfloat16"])
def test_an_explicit_precision_is_used(asked):
    assert choose_precision(asked, CPU) == asked


def test_an_unknown_precision_is_refused_with_the_known_ones():
    with pytest.raises(UserError, match=r"engine\.precision='fp8' is unknown; use auto, float32 or bfloat16"):
        choose_precision("fp8", CPU)


def test_float32_does_not_wrap_the_module():
    module = nn.Linear(2, 2)
    assert computing_in("float32", module, CPU, compile_mode=None) is module


@pytest.mark.parametrize(
    ("asked", "device", "engine", "is_recorded"),
    [
        (None, "cuda", {}, True),
        (None, "cuda", {"compile": False}, True),
        (False, "cuda", {}, False),
        (None, "cpu", {}, False),
        (None, "cuda", {"name": "deepspeed"}, False),
        (None, "cuda", {"compile_mode": "reduce-overhead"}, False),
    ],
)
def test_passes_are_recorded_by_default_where_that_is_possible(asked, device, engine, is_recorded):
    config = EngineConfig(cuda_graphs=asked, precision="float32", **engine)
    assert resolved(config, torch.device(device)).cuda_graphs is is_recorded


@pytest.mark.parametrize(
    ("device", "engine", "obstacle"),
    [
        ("cpu", {}, "a device of type cpu"),
        ("cuda", {"name": "deepspeed"}, "engine=deepspeed, whose communication"),
        ("cuda", {"compile_mode": "max-autotune"}, "engine.compile_mode=max-autotune, which has CUDA graphs"),
    ],
)
def test_recording_is_refused_where_it_is_asked_and_impossible(device, engine, obstacle):
    config = EngineConfig(cuda_graphs=True, precision="float32", **engine)
    with pytest.raises(UserError, match=f"engine.cuda_graphs=true does not go with {obstacle}"):
        resolved(config, torch.device(device))


@pytest.mark.parametrize(
    ("asked", "device", "engine", "is_compiled"),
    [
        (None, "cuda", {}, True),
        (None, "cpu", {}, False),
        (None, "cuda", {"name": "deepspeed", "zero": 2}, True),
        (None, "cuda", {"name": "deepspeed", "zero": 3}, False),
        (True, "cpu", {}, True),
        (True, "cuda", {"name": "deepspeed", "zero": 3}, True),
        (False, "cuda", {}, False),
    ],
)
def test_models_are_compiled_on_gpus_by_default(asked, device, engine, is_compiled):
    config = EngineConfig(compile=asked, precision="float32", **engine)
    assert resolved(config, torch.device(device)).compile is is_compiled


def test_an_unknown_compile_mode_is_refused_with_the_known_ones():
    with pytest.raises(
        UserError, match=r"engine\.compile_mode='fast' is unknown; use one of default, reduce-overhead"
    ):
        chosen_compile_mode(True, "fast")
    assert chosen_compile_mode(True, "reduce-overhead") == "reduce-overhead"
    assert chosen_compile_mode(False, "default") is None
