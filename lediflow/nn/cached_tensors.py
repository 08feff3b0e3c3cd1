"""A context for tensors that outlive the call that creates them, such as cached masks and rotations.

Such a tensor must serve later calls in every mode, whatever the mode of the first one:

- One created in inference mode cannot take part in a backward pass.
- One created inside a transform of `torch.func` (jvp, vmap) is wrapped by that transform, and stays so after it has
  ended; the compiler then refuses graphs that contain it.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack  # there is no public equivalent


@contextmanager
def ordinary_tensors() -> Iterator[None]:
    """Tensors created inside are neither inference tensors nor wrapped by a transform, and require no gradient."""
    with temporarily_clear_interpreter_stack(), torch.inference_mode(False), torch.no_grad():
        yield
