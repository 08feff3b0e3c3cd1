"""The key and a person determine w: standard normal, equal for equal persons, independent for others."""

import hashlib
import hmac
from statistics import NormalDist

import numpy as np
import pytest
import torch
from scipy import stats

from lediflow.editing.anonymisation.keys import Key, encode, read_key
from lediflow.errors import UserError

SECRET = bytes(range(140, 172))
KEY = Key(SECRET)


def test_w_is_the_documented_function_of_key_person_and_seed():
    parts = [b"w", b"5", "Zoë".encode(), b"0"]
    message = b"".join(len(part).to_bytes(8, "big") + part for part in parts)
    block = hmac.new(SECRET, message, hashlib.sha256).digest()
    words = [int.from_bytes(block[k : k + 8], "big") for k in range(0, 32, 8)]
    expected = [NormalDist().inv_cdf(((word >> 11) + 0.5) / 2**53) for word in words]
    # float32 after an inverse of the normal distribution function of float64
    assert KEY.noise("Zoë", 5, (2, 2)).flatten().tolist() == pytest.approx(expected, rel=1e-6)


def test_w_is_standard_normal_over_persons_and_within_one():
    many = torch.stack([KEY.noise(f"person {k}", 0, (3,)) for k in range(4000)])
    assert all(stats.kstest(many[:, k], "norm").pvalue > 1e-3 for k in range(3))
    assert stats.kstest(KEY.noise("anna", 0, (10_000,)), "norm").pvalue > 1e-3
    assert np.abs(np.corrcoef(many.T) - np.eye(3)).max() < 0.06  # 4 standard deviations of 1 / sqrt(4000)


def test_one_person_has_one_w_and_others_have_others():
    own = KEY.noise("anna", 0, (4, 4))
    assert torch.equal(own, Key(SECRET).noise("anna", 0, (4, 4)))
    assert KEY.number("anna", 0) == Key(SECRET).number("anna", 0)
    others = [
        KEY.noise("anne", 0, (4, 4)),
        KEY.noise("anna", 1, (4, 4)),
        Key(SECRET[::-1]).noise("anna", 0, (4, 4)),
    ]
    assert not any(torch.equal(own, other) for other in others)
    assert 0 <= KEY.number("anna", 0) < 2**63


def test_an_accent_spelled_in_two_ways_is_one_person():
    assert torch.equal(KEY.noise("Zo\u00eb", 0, (4,)), KEY.noise("Zoe\u0308", 0, (4,)))


def test_different_parts_never_make_one_message():
    assert encode("ab", "c") != encode("a", "bc") != encode("abc")
    assert KEY.digest("a", b"b") == KEY.digest(b"a", "b") != KEY.digest("b", "a")
    assert encode("\udcff") == (1).to_bytes(8, "big") + b"\xff"  # a name on disk that is not UTF-8


@pytest.mark.parametrize(
    ("secret", "words"),
    [
        (b"", "0 bytes"),
        (SECRET[:15], "15 bytes"),
        (b"x" * 40, "not random"),
        (b"my secret password 12345\n", "is text"),
        (b"correcthorsebatterystaple", "is text"),
    ],
)
def test_keys_that_can_be_guessed_are_refused(secret, words, tmp_path):
    (tmp_path / "face.key").write_bytes(secret)
    with pytest.raises(UserError, match=words) as refused:
        read_key(str(tmp_path / "face.key"))
    assert "head -c 32 /dev/urandom" in str(refused.value)


def test_a_key_that_others_may_read_is_taken_with_a_warning_and_never_shown(tmp_path, caplog):
    path = tmp_path / "face.key"
    path.write_bytes(SECRET)
    path.chmod(0o600)
    read_key(str(path))
    assert not caplog.records
    path.chmod(0o644)
    key = read_key(str(path))
    assert "chmod 600" in caplog.text
    assert SECRET.decode("latin-1") not in repr(key) + caplog.text


def test_a_missing_key_is_refused(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        read_key(str(tmp_path / "none"))
