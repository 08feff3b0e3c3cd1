"""How many machines the tensors mean: engines, ranks, checkpoints, stop requests. No other folder knows of ranks."""
