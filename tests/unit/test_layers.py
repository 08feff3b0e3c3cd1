"""Imports point downwards only, the contract of pyproject.toml; commands import no library that they may not need."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.processes

ROOT = Path(__file__).parents[2]
COMMANDS = (
    "train",
    "sample",
    "evaluate",
    "edit",
    "studio",
    "export",
    "doctor",
    "encode",
    "prepare",
    "submit",
    "status",
    "checkpoint",
)
# the functions of a network that have another form in compiled graphs
EAGER = """
import torch
from lediflow.nn.feedforward import geglu
from lediflow.nn.neighborhood import neighborhood_attention
x = torch.ones(1, 4, 4, 2, 16, requires_grad=True)
neighborhood_attention(x, x, geglu(x.repeat(1, 1, 1, 1, 2)), 3, route="sdpa").sum().backward()
"""


def test_imports_point_downwards_only():
    check = [
        sys.executable,
        "-c",
        "from importlinter.cli import lint_imports_command; lint_imports_command()",
    ]
    found = subprocess.run([*check, "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout + found.stderr


def test_commands_and_eager_networks_import_neither_the_compiler_nor_what_few_runs_need():
    """Importing PyTorch's compiler takes as long as importing PyTorch; it is imported by what compiles."""
    heavy = {"torch._dynamo", "torch._inductor", "triton", "natten", "torchvision", "deepspeed", "diffusers"}
    heavy |= {"huggingface_hub", "open_clip", "torch_fidelity", "wandb", "matplotlib", "scipy", "webdataset"}
    heavy |= {"tensorboard", "wandb_workspaces", "gradio", "onnxruntime", "dlib"}
    commands = ", ".join(f"lediflow.{name}" for name in COMMANDS)
    code = f"import sys, {commands}\n{EAGER}\nprint(sorted({heavy} & {{*sys.modules}}))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"
