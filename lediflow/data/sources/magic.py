"""What kind of image some bytes are, by how they begin."""

MAGIC = {
    b"\xff\xd8\xff": ".jpg",
    b"\x89PNG\r\n\x1a\n": ".png",
    b"GIF8": ".gif",
    b"BM": ".bmp",
    b"II*\x00": ".tif",
    b"MM\x00*": ".tif",
    b"\x00\x00\x00\x0cjP  ": ".jp2",
}
HEAD_BYTES = 16


def image_extension(head: bytes) -> str | None:
    """The extension that suits a file that begins like this; None if it is no image."""
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return ".webp"
    if head[4:12] in (b"ftypavif", b"ftypavis"):
        return ".avif"
    return next((extension for magic, extension in MAGIC.items() if head.startswith(magic)), None)
