"""From photographs on disk to batches of training samples.

sources      folders, tar and zip archives: which images they hold, their bytes
images       bytes <-> a square picture of the asked size and mode
duplicates   files of equal content
prepare      photographs -> image shards
encode       image shards -> latent shards
moments      mean and standard deviation of latents
shard_build  what both have in common: interrupted work is continued, finished work reused
shard_writer one tar shard, whole or absent (the only home of webdataset)
workers      tasks shared by processes
index        index.json and the table of offsets beside the shards
shards       random reads of the shards through that table
split        which samples are held out from training
order        pure: (seed, epoch, position) -> sample
batch        samples side by side
stream       batches for one rank, resumable from one position
augment      flips keyed by sample
synthetic    small drawn pictures for tests and a first try

A name is imported from its module, so that preparing data does not wait for torch.
"""
