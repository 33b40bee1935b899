"""Generation times: warmed up, interleaved, the median."""

from types import SimpleNamespace

import pytest

from dq_lightning.benchmarks.generation_time import generation_seconds


class Clocked:
    """A generator whose every call takes the model's next duration, on a clock of its own."""

    def __init__(self):
        self.now = 0.0
        self.calls = []

    def __call__(self, model, batch):
        self.calls.append((model.name, batch))
        self.now += next(model.durations)


def model(name, *durations):
    return SimpleNamespace(name=name, durations=iter(durations))


@pytest.fixture
def clocked(monkeypatch):
    generator = Clocked()
    monkeypatch.setattr("time.perf_counter", lambda: generator.now)
    return generator


def test_median_without_the_warm_up(clocked):
    models = {"teacher": model("t", 100, 2, 9, 4), "student": model("s", 100, 1, 1, 5)}
    assert generation_seconds(models, ["a"], clocked) == {"teacher": 4.0, "student": 1.0}


def test_a_time_is_that_of_all_batches(clocked):
    models = {"student": model("s", 100, 1, 2, 1, 3)}
    assert generation_seconds(models, ["a", "b"], clocked, repeats=2) == {"student": 3.5}


def test_models_take_turns(clocked):
    models = {"teacher": model("t", *[1] * 9), "student": model("s", *[1] * 9)}
    generation_seconds(models, ["a", "b"], clocked, repeats=2)
    warm_up = [("t", "a"), ("s", "a")]
    turn = [("t", "a"), ("t", "b"), ("s", "a"), ("s", "b")]
    assert clocked.calls == warm_up + 2 * turn
