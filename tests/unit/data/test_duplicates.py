"""Equal content is found, independent of names and processes; only files of equal length are read."""

from dataclasses import dataclass

import pytest

from lediflow.data.duplicates import find_duplicates, known_duplicates
from lediflow.data.sources import Entry


@dataclass
class Memory:
    """A source that counts what is read."""

    contents: list[bytes]

    def __post_init__(self):
        self.reads = []

    @property
    def images(self) -> list[Entry]:
        return [Entry(f"{n}.png", len(content), n) for n, content in enumerate(self.contents)]

    def read(self, entry: Entry) -> bytes:
        self.reads.append(entry.offset)
        if not self.contents[entry.offset]:
            raise OSError("gone")
        return self.contents[entry.offset]


def slow_oracle(contents: list[bytes]) -> dict[int, int]:
    first = {n: contents.index(content) for n, content in enumerate(contents) if content}
    return {n: earlier for n, earlier in first.items() if earlier != n}


@pytest.mark.processes
@pytest.mark.parametrize("workers", [1, 2])
def test_every_later_image_of_equal_bytes_is_named_with_the_first(workers):
    contents = [bytes([n * n % 97, n % 3, 7]) for n in range(2500)]  # equal lengths, several tasks
    source = Memory(contents)
    assert find_duplicates(source, source.images, workers) == slow_oracle(contents)


def test_images_of_unique_length_are_not_read():
    source = Memory([b"a", b"bb", b"cc", b"ddd"])
    assert find_duplicates(source, source.images) == {}
    assert source.reads == [1, 2]


def test_unreadable_images_are_not_duplicates():
    source = Memory([b"", b"", b"x", b"x"])
    assert find_duplicates(source, source.images) == {3: 2}


def test_the_answer_is_kept_for_a_run_that_continues(tmp_path):
    source = Memory([b"x", b"y", b"x"])
    answers = [known_duplicates(tmp_path / "kept.json", source, source.images, workers=1) for _ in range(2)]
    assert answers == [{2: 0}, {2: 0}]
    assert source.reads == [0, 1, 2]


def test_progress_counts_what_is_read_up_to_the_whole():
    source, said = Memory([bytes([n % 256, n // 256]) for n in range(1500)]), []
    find_duplicates(source, source.images, 1, lambda done, total: said.append((done, total)))
    assert said == [(1024, 1500), (1500, 1500)]
