"""From photographs on disk to batches of training samples.

sources      folders, archives, tables and lists: which images they hold, their bytes
images       bytes <-> a square picture of the asked size and mode
duplicates   files of equal content
prepare      photographs -> image shards, each made by picture_shard
encode       image shards -> latent shards
moments      mean and standard deviation of latents
workers      tasks shared by processes
shards       sets of tar shards: written, indexed, read
storage      where their files lie: folders, addresses, caches
streams      which sample comes when, and batches of them for one rank
synthetic    small drawn pictures for tests and a first try
files        files that are whole or absent

A name is imported from its module, so that preparing data does not wait for torch.
"""
