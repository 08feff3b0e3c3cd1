"""Quality against cost: every solver, number of steps and temperature, of one or several runs."""

from lediflow.evaluation.grid.cells import GridConfig, cells

__all__ = ["GridConfig", "cells"]
