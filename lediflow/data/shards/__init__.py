"""Sets of tar shards: what stands in them, how they are written, indexed and read.

index    index.json and the table of offsets beside the shards
writer   one tar shard, whole or absent (the only home of webdataset)
build    a set under construction: interrupted work is continued, finished work reused
reader   random reads of samples through the index
foreign  an index for tars that others wrote
tar_scan one of those tars, read from front to back
"""
