"""Which sample comes when, and batches of samples for one rank.

config  which samples a run trains on, and what is refused before it starts
order   held-out samples, and the order of the others: a pure function (seed, position) -> sample
decoded pictures that were decoded once, kept in host memory
batch   samples as a batch, flips keyed by sample, and corrupt samples replaced
stream  micro-batches for one rank, resumable from one position; the same, of latents that are encoded once
"""
