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
from lediflow.nn.neighborhood import neighborhood_attention
from lediflow.nn.rope import rotation


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


if __name__ == "__main__":
    main()
