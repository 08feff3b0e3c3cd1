"""Where photographs come from.

protocol     what a source is: files that can be listed, and read in any order
opening      which kind of source lies at a path; folders of images and folders of archives
archives     tar and zip, read in place; compressed tars, written out as plain tars first
tables       Parquet files that hold images; lists of images in a CSV or Parquet file
lmdb_images  the values of an LMDB, read in place
names        which files are pictures, by name or by their first bytes
labels       what a label is, the classes made of labels, and which label file belongs to which picture
listing      the images of a source, sorted, with their classes
"""

from lediflow.data.sources.listing import Listing, list_images
from lediflow.data.sources.opening import open_source
from lediflow.data.sources.protocol import Entry, Opened, Source, SourceError

__all__ = ["Entry", "Listing", "Opened", "Source", "SourceError", "list_images", "open_source"]
