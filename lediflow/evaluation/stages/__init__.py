"""Which of the stages limits the quality: the prior, the latent sampler, the flow or the codec."""
