"""The stages of `lediflow.data.encode`: encoding shards, statistics of latents, and a check by decoding."""
