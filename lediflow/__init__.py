"""LeDiFlow: few-step image generation by flow matching from a learned prior (arXiv:2505.20723)."""

__version__ = "0.1.0"
