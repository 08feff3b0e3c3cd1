"""Experiment: a latent sampler trained on the means of the posteriors q(z|y) instead of draws of them.

    python tools/campaign/latent_means.py lediflow.train stage=latent_sampler parent=AUXILIARY_RUN run=RUN ...

The run does not record this. Its losses, held-out ones too, are on means, and do not compare with those on draws.
"""

from __future__ import annotations

import runpy
import sys
from unittest.mock import patch

from torch import Tensor

# where a training draws z ~ q(z|y): of images encoded once, and of images encoded each time
DRAWN = ("lediflow.data.streams.stream.sample", "lediflow.stages.draws.sample")


def mean_of(mean: Tensor, logvar: Tensor, noise: Tensor) -> Tensor:
    """The posterior's mean, in place of a draw."""
    return mean


def main() -> None:
    module = sys.argv[1]
    sys.argv = sys.argv[1:]
    with patch(DRAWN[0], mean_of), patch(DRAWN[1], mean_of):
        runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
