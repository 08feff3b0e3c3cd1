"""`mode=stages`: which stage limits the quality, by images from z of training images, held-out images and the sampler.

stages.json    rows by source of z, solver and steps; losses; the verdict
stages.png     the rows as lines, under the verdict; also stages.svg
rows/          finished rows, reused by the same command

`mode` is the work in its order: `runs` finds the runs, `sources` the sources of z, `latents` makes images from z of
real ones, `rows` measures them, `estimate` is their MMD, `evidence` what a verdict is based on, `verdict` the decision
rule with its text, `record` reads and writes the file.
"""

from lediflow.evaluation.modes.stages.mode import evaluate_stages

__all__ = ["evaluate_stages"]
