"""Trace model blocks that call Triton kernels, as torch.compile does on a GPU; prints the kernels of each graph.

A process of its own: the operators are registered by the first tracing, and kernels are compiled, not interpreted.
"""

import json
from contextlib import suppress

import torch
from torch._dynamo.backends.common import aot_autograd
from torch._functorch import config
from torch._higher_order_ops.triton_kernel_wrap import kernel_side_table

from lediflow.nn import kernels
from lediflow.nn.attention import to_heads
from lediflow.nn.feedforward import geglu
from lediflow.nn.levels import TransformerLayer
from lediflow.nn.neighborhood import neighborhood_attention
from lediflow.nn.rope import rotation
from lediflow.nn.specs import LevelSpec


class NothingRunsHereError(Exception):
    """Kernels cannot run on a CPU."""


def block(both, qkv, scale):
    heads = to_heads(qkv, scale, rotation(4, 4, 1, 16, like=qkv), 16)
    return geglu(both).sum() + neighborhood_attention(*heads, 3, route="triton").sum()


def recorder(name, graphs):
    """A compiler of one pass that notes the kernels of its graph and compiles nothing."""

    def note(graph, _):
        indices = [node.kwargs["kernel_idx"] for node in graph.graph.nodes if "kernel_idx" in node.kwargs]
        graphs[name] = [kernel_side_table.get_kernel(index).fn.__name__ for index in indices]

        def refuse(*_):
            raise NothingRunsHereError

        return refuse

    return note


def main():
    kernels.interpreted = True  # tensors on a CPU pass for those of a GPU
    config.force_non_lazy_backward_lowering = True  # the backward pass is traced although nothing runs
    graphs = {}
    backend = aot_autograd(fw_compiler=recorder("forward", graphs), bw_compiler=recorder("backward", graphs))
    shapes = ((3, 80), (1, 4, 4, 48), (1,))
    inputs = [torch.ones(shape, requires_grad=True) for shape in shapes]
    with suppress(NothingRunsHereError):
        torch.compile(block, fullgraph=True, backend=backend)(*inputs)
    print(json.dumps(graphs))
    print(json.dumps(kernels_without_gradient()))


def kernels_without_gradient():
    """Kernels in the graphs of a layer in bfloat16, by the shape of its tokens."""
    layer = TransformerLayer(LevelSpec(depth=1, width=64, head_dim=64), None, "triton").to(torch.bfloat16)
    graphs = {}
    for shape in ((1, 4, 4, 64), (2, 4, 4, 64), (1, 4, 5, 64)):
        name = "x".join(map(str, shape[:3]))
        backend = aot_autograd(fw_compiler=recorder(name, graphs), inference_compiler=recorder(name, graphs))
        torch.compiler.reset()
        x = torch.ones(shape, dtype=torch.bfloat16)
        with suppress(NothingRunsHereError), torch.no_grad():
            torch.compile(layer, fullgraph=True, backend=backend)(x, rotation(*shape[1:3], 1, 64, like=x))
    return graphs


if __name__ == "__main__":
    main()
