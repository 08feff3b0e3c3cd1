"""Which of the stages loses the quality: the prior, the latent sampler, the flow or the codec."""
