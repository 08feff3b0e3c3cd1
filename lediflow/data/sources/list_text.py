"""The lines of a list that people, pandas or Excel saved: UTF-8, or UTF-16 and UTF-32 with their byte order mark."""

import codecs
import re
from collections.abc import Iterator
from pathlib import Path

from lediflow.data.sources.protocol import SourceError

MARKS = {  # UTF-32's little-endian mark begins like UTF-16's
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
NO_TEXT = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]")
SAVE_ANEW = "save the list as CSV in UTF-8"


def text_lines(path: Path) -> Iterator[str]:
    """Lines with their ends; bytes that are no UTF-8 stay in paths as they are. SourceError for what is no text."""
    with path.open("rb") as file:
        head = file.read(4)
    encoding = next((encoding for mark, encoding in MARKS.items() if head.startswith(mark)), "utf-8-sig")
    errors = "surrogateescape" if encoding == "utf-8-sig" else "strict"
    try:
        with path.open(newline="", encoding=encoding, errors=errors) as stream:
            for line in stream:
                if NO_TEXT.search(line):
                    raise SourceError(
                        f"source={path} holds control characters, as UTF-16 without its mark and files that are no "
                        f"text do; {SAVE_ANEW}"
                    )
                yield line
    except UnicodeError as error:
        raise SourceError(
            f"source={path} begins like {encoding.upper()}, but cannot be read as such ({error}); {SAVE_ANEW}"
        ) from error
