"""Metrics against values computed by hand and against the libraries' own words."""

import random
import time
from pathlib import Path

import pytest
import sacrebleu
from hydra.utils import instantiate
from omegaconf import OmegaConf

from dq_lightning.evaluation.bleu import BleuMetric
from dq_lightning.evaluation.metric import Metric
from dq_lightning.evaluation.rouge import RougeMetric, one_sentence_per_line
from dq_lightning.evaluation.token_error import (
    PhonemeErrorMetric,
    edit_distance,
    nearest_reference,
)

CONF = Path(__file__).parents[2] / "conf" / "metric"
NAMES = sorted(path.stem for path in CONF.glob("*.yaml"))


@pytest.fixture(params=NAMES)
def metric(request: pytest.FixtureRequest) -> Metric:
    built = instantiate(OmegaConf.load(CONF / f"{request.param}.yaml"))
    assert isinstance(built, Metric)
    return built


def test_every_metric_declares_what_it_returns(metric: Metric) -> None:
    scores = metric.compute(["a b c d", "e"], [["a b x d"], ["f", "e g"]])
    assert tuple(scores) == metric.names and metric.primary in metric.names
    assert all(type(value) is float and 0.0 <= value <= 100.0 for value in scores.values())


def test_a_perfect_prediction_is_the_best_score(metric: Metric) -> None:
    best = 100.0 if metric.higher_is_better else 0.0
    scores = metric.compute(["the cat sat on the mat"], [["no", "the cat sat on the mat"]])
    assert scores == pytest.approx(dict.fromkeys(metric.names, best))


def test_empty_predictions_are_the_worst_score(metric: Metric) -> None:
    worst = 0.0 if metric.higher_is_better else 100.0
    scores = metric.compute(["", " "], [["a b"], ["c", "d e"]])
    assert scores == pytest.approx(dict.fromkeys(metric.names, worst))


@pytest.mark.parametrize(
    ("predictions", "references"),
    [([], []), (["a"], []), (["a"], [[]]), (["a", "b"], [["a"], [" "]])],
)
def test_rows_that_do_not_fit_raise(metric: Metric, predictions: list, references: list) -> None:
    with pytest.raises(ValueError, match=type(metric).__name__):
        metric.compute(predictions, references)


@pytest.mark.parametrize(
    ("left", "right", "distance"),
    [("", "", 0), ("a b", "", 2), ("", "a", 1), ("a b c", "a c", 1), ("a b", "b a", 2)],
)
def test_edit_distance_by_hand(left: str, right: str, distance: int) -> None:
    assert edit_distance(left.split(), right.split()) == distance
    assert edit_distance(right.split(), left.split()) == distance


def test_nearest_reference_is_by_distance_then_by_length() -> None:
    references = [["K", "AE", "T", "S"], ["K", "AE"], ["D", "OW"]]
    assert nearest_reference(["K", "AE", "T"], references) == (1, 2)
    assert nearest_reference(["K", "AE", "T"], references[::-1]) == (1, 2)


def test_phoneme_and_word_error_by_hand() -> None:
    predictions = ["K AE T", "D AO G", "T AH M EY T OW", ""]
    references = [
        ["K AE T"],
        ["D AA G", "D AO G Z Z"],
        ["T AH M AA T OW", "T AH M EY T OW"],
        ["AH"],
    ]
    # Distances 0, 1, 0, 1 over reference lengths 3, 3, 6, 1; two of four words are wrong.
    scores = PhonemeErrorMetric().compute(predictions, references)
    assert scores == {"per": pytest.approx(200.0 / 13.0), "wer": 50.0}
    assert not PhonemeErrorMetric.higher_is_better and PhonemeErrorMetric.primary == "wer"


def test_six_thousand_words_take_less_than_a_second() -> None:
    words = random.Random(0)
    rows = [" ".join(words.choices("ABCDEFGH", k=7)) for _ in range(12_000)]
    begin = time.perf_counter()
    PhonemeErrorMetric().compute(rows[:6000], [[row] for row in rows[6000:]])
    assert time.perf_counter() - begin < 1.0


def test_rouge_by_hand() -> None:
    scores = RougeMetric().compute(["the cats sat"], [["the cat was sitting there", "dogs"]])
    # Stemmed, "the" and "cat" are shared: 2 of 3 predicted, 2 of 5 expected, one bigram of 2 and 4.
    assert scores == {
        "rouge1": pytest.approx(50.0),
        "rouge2": pytest.approx(100.0 / 3.0),
        "rougeL": pytest.approx(50.0),
        "rougeLsum": pytest.approx(50.0),
    }


def test_rouge_takes_the_best_reference_and_the_mean_of_rows() -> None:
    scores = RougeMetric().compute(["a b", "q"], [["x y", "a b"], ["r"]])
    assert scores == pytest.approx(dict.fromkeys(RougeMetric.names, 50.0))


def test_rouge_lsum_does_not_mind_the_order_of_sentences() -> None:
    scores = RougeMetric().compute(["Red fox. Blue sky."], [["Blue sky. Red fox."]])
    assert scores["rougeLsum"] == 100.0 and scores["rougeL"] == 50.0


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("", []),
        ("One. Two? Three!", ["One.", "Two?", "Three!"]),
        ("Pi is 3.14 or so.\n\nNew line", ["Pi is 3.14 or so.", "New line"]),
        ('He said "no." Then (why?) left.', ['He said "no."', "Then (why?)", "left."]),
    ],
)
def test_sentences_end_where_the_rule_says(text: str, lines: list[str]) -> None:
    assert one_sentence_per_line(text) == "\n".join(lines)


def test_bleu_by_hand() -> None:
    scores = BleuMetric().compute(["the cat sat on the mat"], [["the cat sat on the hat"]])
    # n-gram precisions 5/6, 4/5, 3/4, 2/3, no brevity penalty.
    expected = 100.0 * (5 / 6 * 4 / 5 * 3 / 4 * 2 / 3) ** 0.25
    assert scores["bleu"] == pytest.approx(expected)


def test_bleu_takes_rows_with_different_numbers_of_references() -> None:
    predictions = ["the cat sat on the mat", "a dog ran away"]
    first = BleuMetric().compute(predictions, [["the cat sat on a mat"], ["a dog ran off", "x y"]])
    streams = [["the cat sat on a mat", "a dog ran off"], [None, "x y"]]
    assert first["bleu"] == sacrebleu.corpus_bleu(predictions, streams).score
    assert first["chrf"] == sacrebleu.corpus_chrf(predictions, streams).score


def test_bleu_says_how_it_was_computed() -> None:
    metric = BleuMetric(tokenize="intl", lowercase=True)
    metric.compute(["a b", "c"], [["a b"], ["c"]])
    assert "nrefs:1|case:lc|eff:no|tok:intl" in metric.recipe
    assert f"version:{sacrebleu.__version__}" in metric.recipe
