"""Experiment: a latent sampler trained on the means of the posteriors q(z|y) instead of draws of them.

    python tools/campaign/latent_means.py lediflow.train stage=latent_sampler parent=AUXILIARY_RUN run=RUN ...

The run does not record this. Its losses, held-out ones too, are on means, and do not compare with those on draws.
"""

from __future__ import annotations

import argparse
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
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("module", choices=["lediflow.train"])
    parser.add_argument("options", nargs=argparse.REMAINDER, metavar="KEY=VALUE", help="of lediflow.train")
    chosen = parser.parse_args()
    sys.argv[1:] = chosen.options
    with patch(DRAWN[0], mean_of), patch(DRAWN[1], mean_of):
        runpy.run_module(chosen.module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
