"""A secret key, and what is derived from it by HMAC-SHA256: the noise w of a person, and digests of files.

    block_i = HMAC-SHA256(key, encode("w", seed, person, i))      32 bytes, i = 0, 1, ...
    u       = (upper 53 bits of each 64-bit word + 1/2) / 2^53     uniform in (0, 1)
    w       = the inverse of the normal distribution function at u

encode() puts the length before each part, so different parts never give the same message. Without the key, w is
indistinguishable from noise, and nothing written with its help can be linked to a person; with it, both are possible.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import math
import re
import stat
import unicodedata
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lediflow.errors import UserError

log = logging.getLogger(__name__)

SHORTEST_BYTES = 16
FEWEST_VALUES = 8  # different bytes; 16 random ones have fewer with probability below 1e-9
TEXT = range(ord(" "), ord("~") + 1)
HEXADECIMAL, BASE64 = rb"[0-9a-fA-F]{32,}", rb"[A-Za-z0-9+/_-]{22,}={0,2}"
ADVICE = "make one with: head -c 32 /dev/urandom > face.key && chmod 600 face.key"
WORDS_PER_BLOCK = 4
BITS = 53  # of a float64's significand
DIGEST_DIGITS = 32


class Key:
    """A secret; its text form does not show it. UserError for too few bytes, or bytes that are not random."""

    def __init__(self, secret: bytes, name: str = "the key") -> None:
        if len(secret) < SHORTEST_BYTES:
            raise UserError(
                f"{name} has {len(secret)} bytes, {SHORTEST_BYTES} random ones are the least that cannot be guessed; "
                f"{ADVICE}"
            )
        if len(set(secret)) < FEWEST_VALUES:
            raise UserError(f"{name} has {len(set(secret))} different bytes, so it is not random; {ADVICE}")
        if is_guessable_text(secret):
            raise UserError(f"{name} is text, which can be guessed as passwords are; {ADVICE}")
        self._secret = secret

    def tag(self, *parts: str | bytes) -> bytes:
        """HMAC-SHA256 of the parts, 32 bytes."""
        return hmac.digest(self._secret, encode(*parts), hashlib.sha256)

    def digest(self, *parts: str | bytes) -> str:
        """A digest for records, in hexadecimal: equal for equal parts, and says nothing about them without the key."""
        return self.tag("digest", *parts).hex()[:DIGEST_DIGITS]

    def noise(self, person: str, seed: int, shape: tuple[int, ...]) -> Float[Tensor, " *shape"]:
        """w of a person: standard normal in float32. Another seed gives everybody another w."""
        count = math.prod(shape)
        blocks = (
            self.tag("w", str(seed), same_spelling(person), str(number))
            for number in range(-(-count // WORDS_PER_BLOCK))
        )
        words = np.frombuffer(b"".join(blocks), dtype=">u8")[:count]
        uniform = ((words >> np.uint64(64 - BITS)).astype(np.float64) + 0.5) / 2**BITS
        return torch.special.ndtri(torch.from_numpy(uniform)).float().reshape(shape)

    def number(self, person: str, seed: int) -> int:
        """The number of the draw of x, of 63 bits: one person's faces start from one noise."""
        return int.from_bytes(self.tag("x", str(seed), same_spelling(person))[:8], "big") >> 1


def is_guessable_text(secret: bytes) -> bool:
    """Whether all bytes are text, and not the hexadecimal or base64 form of SHORTEST_BYTES random ones."""
    text = secret.strip()
    if not all(byte in TEXT for byte in text) or re.fullmatch(HEXADECIMAL, text):
        return False
    return not (
        re.fullmatch(BASE64, text) and all(re.search(kind, text) for kind in (b"[0-9]", b"[a-z]", b"[A-Z]"))
    )


def encode(*parts: str | bytes) -> bytes:
    """Parts as one message; different parts give different messages. Bytes of names that are not UTF-8 are kept."""
    encoded = [part if isinstance(part, bytes) else part.encode(errors="surrogateescape") for part in parts]
    return b"".join(len(part).to_bytes(8, "big") + part for part in encoded)


def same_spelling(name: str) -> str:
    """A name in Unicode's composed form: file systems spell an accent as one character or as two."""
    return unicodedata.normalize("NFC", name)


def read_key(path: str) -> Key:
    """The key in a file, all of its bytes; warns if others may read it. UserError if it is unusable."""
    file = Path(path)
    try:
        secret, mode = file.read_bytes(), file.stat().st_mode
    except OSError as error:
        raise UserError(f"key={path} cannot be read ({error.strerror or error}); {ADVICE}") from error
    key = Key(secret, f"key={path}")
    if mode & (stat.S_IRGRP | stat.S_IROTH):
        log.warning("key=%s can be read by other users of this machine; protect it: chmod 600", path)
    return key
