"""Generation of images with the trained models, and folders of generated images."""

from lediflow.sampling.options import SamplingConfig, SamplingOptions
from lediflow.sampling.pipeline import Generated, LeDiFlowPipeline

__all__ = ["Generated", "LeDiFlowPipeline", "SamplingConfig", "SamplingOptions"]
