"""Pictures are decoded once, if all of a set fit in memory; the batches are the same, also on their way to a GPU."""

from collections import Counter
from contextlib import nullcontext

import numpy as np
import pytest
import torch

from lediflow.data.shards.reader import ShardReader
from lediflow.data.streams import decoded
from lediflow.data.streams.batch import Uploads, load_samples, ready
from lediflow.data.streams.config import DataConfig
from lediflow.data.streams.decoded import decoded_pictures
from lediflow.data.streams.stream import SampleStream
from lediflow.flow.noise import SampleNoise

EPOCHS, BATCH = 3, 10  # of fifty samples


class Counting(ShardReader):
    """Counts how often each sample is read."""

    def __init__(self, index):
        super().__init__(index)
        self.reads = Counter()

    def stored(self, samples, views=None):
        self.reads.update(samples.tolist())
        return super().stored(samples, views)


def batches_of(reader, **config):
    """All batches of three epochs, and the stream."""
    options = {"threads": 1, "flip_horizontal": True, "flip_vertical": True} | config
    stream = SampleStream(reader, DataConfig(**options), seed=3, micro_batch=BATCH, global_batch=BATCH)
    found = [stream.next_batch() for _ in range(EPOCHS * len(reader) // BATCH)]
    stream.close()
    return found


def test_a_run_sees_the_same_bits_and_reads_each_sample_once(reader):
    counting, again = Counting(reader.index), Counting(reader.index)
    for kept, read in zip(batches_of(counting), batches_of(again, decoded_gib=0), strict=True):
        assert kept.keys == read.keys
        assert torch.equal(kept.images, read.images)
    assert set(counting.reads.values()) == {1}
    assert min(again.reads.values()) >= EPOCHS


def test_threads_that_fill_the_same_rows_change_nothing(reader):
    one, many = batches_of(reader), batches_of(reader, threads=4)
    assert all(torch.equal(a.images, b.images) for a, b in zip(one, many, strict=True))


def test_a_set_that_does_not_fit_and_arrays_are_read_at_every_use(reader, monkeypatch):
    gib = len(reader) * reader.row_bytes / 2**30
    assert decoded_pictures(reader, gib) is not None
    assert decoded_pictures(reader, 0.99 * gib) is None
    with monkeypatch.context() as patch:
        patch.setattr(decoded, "free_memory", lambda: 1.99 * gib * 2**30)
        assert decoded_pictures(reader, gib) is None
    monkeypatch.setattr(reader, "is_array", True)
    assert decoded_pictures(reader, gib) is None


def test_a_batch_is_the_callers_own(reader):
    pictures = decoded_pictures(reader, 1.0)
    some = np.arange(4)
    pictures.stored(some).zero_()
    assert torch.equal(pictures.stored(some), reader.stored(some))


class Stream:
    """A CUDA stream or event that notes what is called with it."""

    def __init__(self, notes, name):
        self.notes, self.name = notes, name

    def record(self, stream):
        self.notes.append(("recorded on", stream.name))

    def wait_event(self, event):
        self.notes.append((self.name, "waits for", event.name))


@pytest.fixture
def cuda(monkeypatch):
    """Stands in for CUDA; returns the list of what was asked of it."""
    notes = []
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: Stream(notes, "copies"))
    monkeypatch.setattr(torch.cuda, "Event", lambda: Stream(notes, "arrived"))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream(notes, "compute"))
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext(notes.append("on copies")))
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: notes.append("pinned") or self.clone())
    monkeypatch.setattr(
        torch.Tensor, "record_stream", lambda self, stream: notes.append(("read by", stream.name))
    )
    return notes


def test_the_gpu_waits_for_a_copy_that_a_loading_thread_began(reader, cuda):
    samples = np.arange(6)
    plain = load_samples(reader, samples, samples)
    sent = Uploads(torch.device("cpu"))(plain)
    assert cuda == ["pinned"] * 3 + ["on copies", ("recorded on", "copies")]
    cuda.clear()
    batch = ready(sent, reader, SampleNoise(0), "cpu")
    assert cuda == [("compute", "waits for", "arrived")] + [("read by", "compute")] * 3
    assert torch.equal(batch.images, ready(plain, reader, SampleNoise(0), "cpu").images)
    assert torch.equal(batch.labels, plain.labels)
