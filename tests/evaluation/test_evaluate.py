"""Scores of a split, computed once for all who ask the same."""

import json
import math
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from dq_lightning.evaluation.evaluate import Evaluation, cached_evaluation, evaluate
from dq_lightning.evaluation.token_error import PhonemeErrorMetric

RESULT = Evaluation({"wer": 25.0, "per": 1 / 3}, ["K AE T", "ÉÉ"], 1.25)
IDENTITY = ["digest", "test", None, {"num_beams": 1}, 4]


class Counted:
    def __init__(self, result=RESULT):
        self.result, self.calls = result, 0

    def __call__(self):
        self.calls += 1
        return self.result


def entries(folder):
    return [file for file in (folder / "evaluations").iterdir() if file.suffix != ".lock"]


def test_texts_are_scored_against_the_references_of_their_row():
    said = {0: "K AE T", 1: "D AO", 2: "B"}
    batches = [{"index": torch.tensor([2, 0])}, {"index": torch.tensor([1])}]
    result = evaluate(
        None,
        batches,
        [["K AE T"], ["D AO G", "D AA"], ["B"]],
        lambda model, batch: [said[int(index)] for index in batch["index"]],
        PhonemeErrorMetric(),
    )
    assert result.texts == ["K AE T", "D AO", "B"]
    assert result.scores["wer"] == pytest.approx(100 / 3)
    assert result.seconds >= 0.0


def test_the_second_asker_gets_the_same_answer(tmp_path):
    first, second = Counted(), Counted(None)
    assert cached_evaluation(IDENTITY, tmp_path, first) == RESULT
    assert cached_evaluation(IDENTITY, tmp_path, second) == RESULT
    assert (first.calls, second.calls) == (1, 0)
    assert len(entries(tmp_path)) == 1  # nothing half-written beside it


@pytest.mark.parametrize("part", range(len(IDENTITY)))
def test_any_other_question_is_asked_anew(tmp_path, part):
    cached_evaluation(IDENTITY, tmp_path, Counted())
    other = [*IDENTITY[:part], "different", *IDENTITY[part + 1 :]]
    anew = Counted()
    cached_evaluation(other, tmp_path, anew)
    assert anew.calls == 1


def test_the_order_of_settings_is_no_other_question(tmp_path):
    again = Counted()
    cached_evaluation([{"a": 1, "b": 2}], tmp_path, Counted())
    cached_evaluation([{"b": 2, "a": 1}], tmp_path, again)
    assert again.calls == 0


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"scores": {}}', "null", "\x00"])
def test_an_unreadable_entry_is_made_anew(tmp_path, content):
    cached_evaluation(IDENTITY, tmp_path, Counted())
    (file,) = entries(tmp_path)
    file.write_text(content)
    assert cached_evaluation(IDENTITY, tmp_path, Counted()) == RESULT
    assert json.loads(file.read_text())["seconds"] == 1.25


def test_a_failure_is_not_kept(tmp_path):
    def fail():
        raise RuntimeError("no memory")

    with pytest.raises(RuntimeError, match="no memory"):
        cached_evaluation(IDENTITY, tmp_path, fail)
    assert entries(tmp_path) == []
    assert cached_evaluation(IDENTITY, tmp_path, Counted()) == RESULT


def test_numbers_that_json_does_not_know_survive(tmp_path):
    result = Evaluation({"wer": math.inf}, [], 0.0)
    cached_evaluation(IDENTITY, tmp_path, Counted(result))
    assert cached_evaluation(IDENTITY, tmp_path, Counted()).scores == {"wer": math.inf}


def test_runs_side_by_side_compute_once(tmp_path):
    compute = Counted()
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(
            lambda _: cached_evaluation(IDENTITY, tmp_path, compute), range(8)
        ))  # fmt: skip
    assert answers == [RESULT] * 8
    assert compute.calls == 1
