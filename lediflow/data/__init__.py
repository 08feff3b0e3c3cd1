"""From photographs on disk to batches of training samples.

sources        folders, archives, tables and lists: which images they hold, and their bytes
metadata       what an image file holds besides its pixels
photograph     bytes of an image file -> upright 8-bit image -> square picture of a given size and mode
pixels         pixels of any kind -> 8 bits per channel, opaque, in sRGB
duplicates     images whose files have equal content
source_record  what a set of shards records about its source, and whether the source has changed since
prepare        photographs -> image shards
encode         image shards -> latent shards
latents        latents as they are stored, their statistics, and how well they decode
workers        tasks shared by processes, and results prefetched by threads
shards         sets of tar shards: written, indexed, read
storage        where the files of a set lie: folders, addresses, caches
streams        which sample comes when, and batches for one rank
augmentation   random transformations of images without aliasing, given to the model as numbers
synthetic      small drawn pictures for tests and for a first try

Import a name from its module: the package imports nothing, so that preparing data does not wait for torch.
"""
