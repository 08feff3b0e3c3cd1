"""LeDiFlow: few-step image generation by flow matching from a learned prior (arXiv:2505.20723)."""

from lediflow.quiet import silence_third_parties

__version__ = "0.1.0"

silence_third_parties()
