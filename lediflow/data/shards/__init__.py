"""Sets of tar shards: what they contain, how they are written, indexed and read.

index        index.json and the table of offsets next to the shards
writer       one tar shard, whole or absent (the only module that imports webdataset)
build        a set under construction: interrupted work is continued, finished work reused
reader       random reads of samples through the index
foreign      an index for tars that another program wrote
tar_samples  which members of such a tar are samples, and what it says about them
"""
