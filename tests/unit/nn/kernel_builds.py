"""Build every Triton kernel for real GPUs, on a machine without one; prints a line of JSON for each.

A process of its own: the tests' has Triton interpret its kernels.
"""

import json
import warnings
from inspect import signature

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from lediflow.flow import noise, noise_kernel
from lediflow.nn import projected as joint
from lediflow.nn.few_tokens import HEAD_DIMS, MOST_TOKENS
from lediflow.nn.kernels import few_tokens, fused, neighborhood, projected
from lediflow.nn.neighborhood import triton as route

INTEGERS = {"ids", "stream"}  # of 64 bits
# float32 for any dtype of the model
WIDE = {
    "lse",
    "delta",
    "factors",
    "products",
    "cos",
    "sin",
}
NARROW = {
    "q",
    "k",
    "v",
    "o",
    "g",
    "dq",
    "dk",
    "dv",
    "qkv",
    "dqkv",
    "scale",
    "both",
    "out",
    "grad_out",
    "grad_both",
}
NAMES = {torch.bfloat16: "bf16", torch.float32: "fp32"}
CAPABILITIES = {"RTX 3090": 86, "H100": 90}
CASES = [("RTX 3090", torch.bfloat16, 64), ("RTX 3090", torch.float32, 128), ("H100", torch.bfloat16, 64)]


def attention_kernels(dtype, head_dim):
    x = torch.empty(1, 32, 32, 1, head_dim, dtype=dtype, device="meta")
    for kernel, tile, reach in (
        (neighborhood.attention, route.FORWARD, route.key_reach),
        (neighborhood.query_gradient, route.QUERY_GRADIENT, route.key_reach),
        (neighborhood.key_value_gradient, route.key_value_tile(x), route.query_reach),
    ):
        yield kernel, route.constants(x, 7, 1.0, tile, reach=reach)


def joint_kernels(head_dim):
    """Attention from the projection's output, for 16-bit numbers only."""
    for tokens, is_single in ((256, True), (64, False)):
        tile = joint.tile(tokens, head_dim, is_single=is_single)
        yield projected.attend_projected, {"EPS": 1e-6, "HEAD_DIM": head_dim, "PRECISION": "tf32", **tile}


def other_kernels(head_dim):
    yield fused.split_and_rotate, {"EPS": 1e-6, "HEAD_DIM": head_dim, "BLOCK": 16, "num_warps": 2}
    yield fused.split_and_rotate_gradient, {"HEAD_DIM": head_dim, "BLOCK": 16, "num_warps": 2}
    yield fused.geglu, {"WIDTH": 768, "ROWS": 8, "COLUMNS": 256}
    yield fused.geglu_gradient, {"WIDTH": 768, "ROWS": 8, "COLUMNS": 256}
    if head_dim in HEAD_DIMS:
        for kernel in (few_tokens.attend, few_tokens.attend_gradient):
            yield kernel, {"BLOCK": MOST_TOKENS, "HEAD_DIM": head_dim, "num_warps": 4}
    yield noise_kernel.draws, {"IS_NORMAL": True, "IN_TENSOR": False, "BLOCK": noise.BLOCK}


def build(kernel, constants, dtype, capability):
    """Bytes of shared memory that a block of the built kernel takes."""
    options = {name: constants[name] for name in ("num_warps", "num_stages") if name in constants}
    constants = {name: value for name, value in constants.items() if name not in options}

    def kind(name):
        if name in constants:
            return "constexpr"
        if name in WIDE:
            return "*fp32"
        if name in INTEGERS:
            return "*i64"
        return f"*{NAMES[dtype]}" if name in NARROW else "i32"

    kinds = {name: kind(name) for name in signature(kernel.fn).parameters}
    aligned = [["tt.divisibility", 16]]  # as PyTorch's allocations are; pipelines need it
    attributes = {(place,): aligned for place, kind in enumerate(kinds.values()) if kind.startswith("*")}
    source = ASTSource(fn=kernel, signature=kinds, constexprs=constants, attrs=attributes)
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options).metadata.shared


def main():
    warnings.simplefilter("ignore")
    for gpu, dtype, head_dim in CASES:
        found = [*attention_kernels(dtype, head_dim), *other_kernels(head_dim)]
        joint_of = joint_kernels(head_dim) if dtype != torch.float32 else ()
        for kernel, constants in (*found, *joint_of):
            shared = build(kernel, constants, dtype, CAPABILITIES[gpu])
            about = {"kernel": kernel.fn.__name__, "gpu": gpu, "dtype": NAMES[dtype], "head_dim": head_dim}
            print(json.dumps({**about, "shared_bytes": shared}), flush=True)


if __name__ == "__main__":
    main()
