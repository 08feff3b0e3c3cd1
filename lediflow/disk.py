"""Disks: what makes sure that a file survives a loss of power, and what to do about their errors."""

import errno
import os
from pathlib import Path

# Errors that come again however often the command is repeated, until somebody acts.
ADVICE = {
    errno.ENOSPC: "free some space there, or choose another output; the same command then continues",
    errno.EDQUOT: "your quota is used up: free some space, or choose another output",
    errno.EFBIG: "the file system or a limit (ulimit -f) allows no files of that size: lower shard_samples",
    errno.EACCES: "mend its permissions, or choose an output you may write to",
    errno.EPERM: "mend its permissions, or choose an output you may write to",
    errno.EROFS: "the file system is read-only: choose another output",
    errno.ENOTDIR: "a file stands where a folder is needed: choose another output",
    errno.EEXIST: "something stands where a file or folder is to be made: choose another output",
    errno.EISDIR: "a folder stands where a file is needed: choose another path",
    errno.ENOTEMPTY: "a folder stands where a file is needed: choose another path",
    errno.ENAMETOOLONG: "choose a shorter path",
    errno.ELOOP: "its symbolic links lead in a circle: mend them",
}


def lasting_fault(error: OSError) -> str | None:
    """A sentence about an error that will come again until somebody acts; None for any other."""
    if error.errno not in ADVICE:
        return None
    place = error.filename2 or error.filename or "a file"
    return f"cannot read or write {place}: {error.strerror}; {ADVICE[error.errno]}"


def flush(path: Path) -> None:
    """fsync a file, or a folder's list of names."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
