"""Where photographs come from.

protocol     what a source is
opening      which kind lies at a path
listing      its images, sorted, with their classes
pairing      which label file belongs to which picture
class_notes  how many classes there are, or why there are none
labels       classes as numbers and names
names        which files are pictures, and what is passed over
folder, tar, zipped, lmdb_images, image_list    read in any order as they lie
compressed, parquet                             unpacked first, by unpacking
archives     a folder of any of these files
magic        what kind of image some bytes are
"""

from lediflow.data.sources.listing import Listing, list_images
from lediflow.data.sources.opening import open_source
from lediflow.data.sources.protocol import Entry, Opened, Source, SourceError

__all__ = ["Entry", "Listing", "Opened", "Source", "SourceError", "list_images", "open_source"]
