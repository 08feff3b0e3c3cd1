"""Does the learned prior know what it does not know? Its likelihood, calibration and sharpness on real images."""

from lediflow.evaluation.prior.diagnose import diagnose

__all__ = ["diagnose"]
