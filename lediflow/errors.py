"""The exception for errors that a user can correct, exit statuses, and advice on errors of disks and file systems."""

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

BAD_REQUEST = 2  # exit status of a request that cannot be met
INTERRUPTED = 130  # exit status after Ctrl-C, as shells use it: 128 + SIGINT


class UserError(Exception):
    """A request cannot be met; the message says what was requested, what was found and what to do.

    Entry points print the message without a traceback and exit with BAD_REQUEST.
    """


# by error number: errors that persist until somebody acts, so that repeating the command does not help
ADVICE = {
    errno.ENOSPC: "free some space there, or choose another output; the same command then continues",
    errno.EDQUOT: "your quota is used up: free some space, or choose another output",
    errno.EFBIG: "the file system or a limit (ulimit -f) allows no files of that size: lower shard_samples",
    errno.EACCES: "change its permissions, or choose an output you may write to",
    errno.EPERM: "change its permissions, or choose an output you may write to",
    errno.EROFS: "the file system is read-only: choose another output",
    errno.ENOTDIR: "a file exists where a folder is needed: choose another output",
    errno.EEXIST: "something exists where a file or folder is to be created: choose another output",
    errno.EISDIR: "a folder exists where a file is needed: choose another path",
    errno.ENOTEMPTY: "a folder exists where a file is needed: choose another path",
    errno.ENAMETOOLONG: "choose a shorter path",
    errno.ELOOP: "its symbolic links lead in a circle: correct them",
}


def lasting_fault(error: OSError) -> str | None:
    """A message for an error that persists until somebody acts; None for any other."""
    if error.errno not in ADVICE:
        return None
    place = error.filename2 or error.filename or "a file"
    return f"cannot read or write {place}: {error.strerror}; {ADVICE[error.errno]}"


@contextmanager
def exit_on_errors(interrupted: str = "interrupted") -> Iterator[None]:
    """End the process without a traceback, with a message, for an error that a user can correct, and after Ctrl-C."""
    try:
        yield
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(BAD_REQUEST)
    except KeyboardInterrupt:
        if interrupted:
            print(interrupted, file=sys.stderr)
        sys.exit(INTERRUPTED)
    except OSError as error:
        if (fault := lasting_fault(error)) is None:
            raise
        print(f"error: {fault}", file=sys.stderr)
        sys.exit(BAD_REQUEST)


@contextmanager
def disk_errors_explained(path: Path) -> Iterator[None]:
    """Turn an OSError raised while writing `path` into a UserError that says what to do."""
    try:
        yield
    except OSError as error:
        advice = ADVICE.get(error.errno or 0, "check the path and the disk")
        raise UserError(f"cannot write {path}: {error.strerror or error}; {advice}") from error
