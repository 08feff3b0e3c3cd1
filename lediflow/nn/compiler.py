"""Marks for torch.compile and torch.export that do not import PyTorch's compiler.

`torch.compiler`'s decorators import torch._dynamo when they are applied, which takes as long as importing torch itself.
Every command would pay for it when it imports the networks, although most never compile.
"""

from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


def constant_in_graphs(function: Callable[P, R]) -> Callable[P, R]:
    """Mark a function so that a compiled graph contains its result as a constant; return the same function.

    The compiler runs the function once, while it traces, and neither traces it nor checks its result again. It is meant
    for functions whose result depends only on their arguments, such as shapes, dtypes and devices, and on what is
    installed.

    Equals `torch.compiler.assume_constant_result`, which sets this attribute and nothing else.
    """
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function
