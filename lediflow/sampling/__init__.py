"""Generation of images with the trained models, and folders of generated images."""

from lediflow.sampling.pipeline import Generated, LeDiFlowPipeline, SamplingConfig, SamplingOptions

__all__ = ["Generated", "LeDiFlowPipeline", "SamplingConfig", "SamplingOptions"]
