"""Where photographs come from.

protocol       what a source is: files that can be listed, and read in any order
opening        which kind of source lies at a path; folders of images and folders of archives
archive_files  tar and zip, read in place
lmdb_images, image_list   an LMDB, and a list of files in a table: read in place
unpacking      compressed tars (and Parquet files): written out as plain tars first
parquet        Parquet files that hold images
names          which files are pictures, by name or by their first bytes
pairing        which label file belongs to which picture
listing        the images of a source, sorted, with their classes
"""

from lediflow.data.sources.listing import Listing, list_images
from lediflow.data.sources.opening import open_source
from lediflow.data.sources.protocol import Entry, Opened, Source, SourceError

__all__ = ["Entry", "Listing", "Opened", "Source", "SourceError", "list_images", "open_source"]
