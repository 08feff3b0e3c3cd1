"""Where the files of a set of shards lie, and how their bytes are fetched.

protocol  what every storage can do
local     a folder, on this machine's disks or a parallel file system
remote    http(s), s3 and whatever else fsspec reaches (its only home)
memory    shards of another storage held whole in memory
cache     shards of another storage copied to a node-local folder, up to a size
retry     another storage, patiently: repeated attempts, time limits, one clear error at the end
choice    which of these a set is read with
"""

from lediflow.data.storage.choice import ReadingConfig, open_storage
from lediflow.data.storage.protocol import Read, Storage

__all__ = ["Read", "ReadingConfig", "Storage", "open_storage"]
