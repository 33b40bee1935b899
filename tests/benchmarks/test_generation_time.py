"""Generation times: warmed up, interleaved, the median."""

from functools import partial

import pytest

from dq_lightning.benchmarks.generation_time import generation_seconds


class Clock:
    """A clock that moves by a writer's next duration at each of its calls."""

    def __init__(self):
        self.now = 0.0
        self.calls = []

    def write(self, name, durations, batch):
        self.calls.append((name, batch))
        self.now += next(durations)

    def writer(self, name, *durations):
        return partial(self.write, name, iter(durations))


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr("time.perf_counter", lambda: clock.now)
    return clock


def test_median_without_the_warm_up(clock):
    writers = {"teacher": clock.writer("t", 100, 2, 9, 4), "s": clock.writer("s", 100, 1, 1, 5)}
    assert generation_seconds(writers, ["a"]) == {"teacher": 4.0, "s": 1.0}


def test_a_time_is_that_of_all_batches(clock):
    writers = {"student": clock.writer("s", 100, 1, 2, 1, 3)}
    assert generation_seconds(writers, ["a", "b"], repeats=2) == {"student": 3.5}


def test_writers_take_turns(clock):
    writers = {"teacher": clock.writer("t", *[1] * 9), "student": clock.writer("s", *[1] * 9)}
    generation_seconds(writers, ["a", "b"], repeats=2)
    warm_up = [("t", "a"), ("s", "a")]
    turn = [("t", "a"), ("t", "b"), ("s", "a"), ("s", "b")]
    assert clock.calls == warm_up + 2 * turn
