"""From noise to images: the trained models, one after the other."""

from lediflow.sampling.pipeline import Generated, LeDiFlowPipeline, SamplingConfig, SamplingOptions

__all__ = ["Generated", "LeDiFlowPipeline", "SamplingConfig", "SamplingOptions"]
