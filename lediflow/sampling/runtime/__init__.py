"""How the networks of a chain are run: eagerly, by torch.compile, or as packages that were compiled before.

    networks   what a chain calls: three functions of tensors, and their eager form
    compiled   torch.compile of each, computing with copies of the weights
    packages   the same, compiled ahead of time by AOTInductor and kept in files
    graphs     CUDA graphs of a whole chain, from the numbers of the images to the images
    choice     which of them is used where

Whichever runs, an image is the same up to the rounding of sums, because noise and solver steps are shared.
"""

from lediflow.sampling.runtime.choice import Runtime, choose_precision, choose_runtime
from lediflow.sampling.runtime.graphs import Inputs

__all__ = ["Inputs", "Runtime", "choose_precision", "choose_runtime"]
