"""How the networks of a chain are run: eagerly, by torch.compile, or as packages that were compiled before.

    networks   what a chain calls: three functions of tensors, and their eager form
    copies     copies of the weights, for compiled networks to compute with
    compiled   torch.compile of each
    packages   the same, compiled ahead of time by AOTInductor and kept in files
    graphs     CUDA graphs of a whole chain, from the numbers of the images to the images
    runtime    one of them, prepared for a pipeline; which of them `auto` takes

Whichever runs, an image is the same up to the rounding of sums, because noise and solver steps are shared.
"""

from lediflow.sampling.runtime.graphs import Inputs
from lediflow.sampling.runtime.networks import Networks
from lediflow.sampling.runtime.runtime import Runtime, choose_runtime

__all__ = ["Inputs", "Networks", "Runtime", "choose_runtime"]
