"""The index of an event log: the same events as `read_events`, while the log grows."""

import pytest
from harness.event_logs import EventLog, requeued_twice

from lediflow.tracking.event_log import read_events
from lediflow.tracking.wandb.log_index import IndexedLog, first_event


def test_it_has_the_events_of_the_log_and_those_that_are_appended(tmp_path):
    log = requeued_twice(tmp_path)
    index = IndexedLog(log.path)
    with log.path.open("a") as stream:
        stream.write('torn by a crash {"time"\n\n')
    log.train(210)
    index.refresh()
    index.refresh()
    events = read_events(log.path)
    assert [*index.events(range(len(index)))] == events
    assert [index.place(number) for number in range(len(index))] == [
        (e["event"], e["images_seen"]) for e in events
    ]
    assert [*index.named("start", "resume")] == [e for e in events if e["event"] in ("start", "resume")]
    assert [*index.at("train", 110)] == [
        e for e in events if (e["event"], e["images_seen"]) == ("train", 110)
    ]
    assert first_event(log.path) == events[0]


def test_a_line_counts_once_it_is_whole(tmp_path):
    log = EventLog(tmp_path)
    log.train(10, 20)
    whole = log.path.read_bytes()
    for length in (*range(0, len(whole), 9), whole.index(b"\n"), len(whole) - 1, len(whole)):
        log.path.write_bytes(whole[:length])
        index = IndexedLog(log.path)
        log.path.write_bytes(whole)
        index.refresh()
        assert [*index.events(range(len(index)))] == read_events(log.path)


def test_there_may_be_no_log_yet(tmp_path):
    index = IndexedLog(tmp_path / "events.jsonl")
    assert len(index) == 0 and first_event(index.path) is None
    EventLog(tmp_path).train(10)
    index.refresh()
    assert len(index) == 1


def test_a_log_that_was_replaced_is_named(tmp_path):
    log = EventLog(tmp_path)
    log.train(10)
    index = IndexedLog(log.path)
    log.path.write_text("something else\n")
    with pytest.raises(OSError, match="has changed"):
        [*index.events([0])]
