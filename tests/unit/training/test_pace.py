"""A slow rank is named when it stays slow, and once."""

import logging
from types import SimpleNamespace

import pytest
import torch

from lediflow.engine.timings import NAMES
from lediflow.training.pace import Pace

FAST, SLOW = 0.1, 0.9


class Gathering:
    """An engine of two ranks whose timings are given."""

    def __init__(self, is_first=True):
        self.ranks, self.device, self.second = SimpleNamespace(is_first=is_first), torch.device("cpu"), FAST
        self.group = SimpleNamespace(stack=self.stack)

    def time_communication(self, stopwatch):
        """Nothing is sent."""

    def stack(self, row):
        rows = torch.full((2, len(row)), FAST)
        rows[1, [NAMES.index("work") * 3]] = self.second
        rows[:, [NAMES.index("step") * 3]] = 1.0
        return rows


@pytest.fixture
def told(caplog):
    """Records with these seconds of the second rank -> what is said."""

    def after(seconds, is_first=True):
        engine = Gathering(is_first)
        pace = Pace(engine, SimpleNamespace(record=lambda *event, **values: None))
        caplog.set_level(logging.WARNING)
        for number, engine.second in enumerate(seconds):
            pace.end_step()
            pace.record(number)
        return [record.getMessage() for record in caplog.records]

    return after


def test_a_rank_that_stays_slow_is_named_once(told):
    assert told([SLOW] * 6) == ["at 2 images: rank 1 takes 900 ms a step for its own work, the others 100"]


def test_a_rank_that_was_slow_for_a_moment_is_not(told):
    assert told([SLOW, SLOW, FAST] * 3) == []


def test_a_rank_that_is_slow_again_later_is_named_again(told):
    assert len(told([SLOW] * 3 + [FAST] + [SLOW] * 3)) == 2


def test_one_rank_speaks_for_all(told):
    assert told([SLOW] * 6, is_first=False) == []
