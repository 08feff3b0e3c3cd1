"""Which sample comes when, and batches of them for one rank.

config      which samples a run trains on, and what is refused
split       which samples are held out from training
order       pure: (seed, epoch, position) -> sample
batch       samples side by side
augment     flips keyed by sample; those that models are given as an input: lediflow/data/augmentation
quarantine  corrupt samples: named, counted, replaced
stream      batches for one rank, resumable from one position
"""
