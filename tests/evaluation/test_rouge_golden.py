"""ROUGE against the reference scorer called directly, and against committed numbers."""

import re
import sys
from importlib.metadata import version

import pytest
from rouge_score.rouge_scorer import RougeScorer

from dq_lightning.evaluation.bleu import BleuMetric
from dq_lightning.evaluation.rouge import RougeMetric, one_sentence_per_line
from dq_lightning.evaluation.token_error import PhonemeErrorMetric

# (prediction, reference), one sentence a line as the reference scorer wants them; the rule ends a
# sentence after every "U.S."
TEXTS = {
    "reordered": (
        "The council voted against the plan on Monday.\nResidents had complained about noise.",
        "Residents complained about noise for years.\nOn Monday, the council rejected the plan.",
    ),
    "abbreviations and numbers": (
        "Profits at the firm rose by 3.5% to $1.2m in the U.S.\nmarket!\nShares jumped.",
        "The firm's profits rose 3.5% to $1.2m.\nIts U.S.\nshares jumped on the news, it said.",
    ),
    "quotes": (
        '"We are running late," the minister said.\n"It will be finished."\nNobody believed him.',
        'The minister said the work was late (again).\nHe promised: "It will be finished!"',
    ),
    "empty prediction": ("", "Nothing was written here.\nTwo sentences were expected."),
    "unicode": (
        "Șeful ONU declară că nu există o soluție militară.\nZoë\u2019s café — closed… for good?",
        "Șeful ONU a declarat că nu există soluții militare în Siria.\nZoë's café is closed.",
    ),
    "repeats": (
        "The cat sat.\nThe cat sat.\nThe cat sat on the mats.",
        "A cat was sitting on the mat.",
    ),
}
GOLDEN = {  # rouge1, rouge2, rougeL, rougeLsum of rouge_score 0.1.2, stemmed
    "reordered": [76.9231, 41.6667, 30.7692, 61.5385],
    "abbreviations and numbers": [73.6842, 38.8889, 63.1579, 68.4211],
    "quotes": [57.1429, 38.4615, 50.0, 50.0],
    "empty prediction": [0.0, 0.0, 0.0, 0.0],
    "unicode": [66.6667, 32.2581, 66.6667, 66.6667],
    "repeats": [42.1053, 23.5294, 42.1053, 42.1053],
}


def one_line(text: str) -> str:
    return text.replace("\n", " ")


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("use_stemmer", [True, False])
def test_it_is_the_reference_scorer_on_newline_joined_sentences(name, use_stemmer):
    prediction, reference = TEXTS[name]
    for text in (prediction, reference):  # else the two columns would not be comparable
        assert one_sentence_per_line(one_line(text)) == text
    scorer = RougeScorer(list(RougeMetric.names), use_stemmer=use_stemmer)
    direct = scorer.score(target=reference, prediction=prediction)
    ours = RougeMetric(use_stemmer).compute([one_line(prediction)], [[one_line(reference)]])
    assert ours == {key: 100.0 * score.fmeasure for key, score in direct.items()}


@pytest.mark.parametrize("name", TEXTS)
def test_the_numbers_stay_what_they_are(name):
    prediction, reference = map(one_line, TEXTS[name])
    ours = RougeMetric().compute([prediction], [[reference]])
    assert [round(ours[key], 4) for key in RougeMetric.names] == GOLDEN[name]


def test_a_corpus_is_the_mean_of_its_rows():
    predictions, references = zip(*(map(one_line, pair) for pair in TEXTS.values()), strict=True)
    ours = RougeMetric().compute(predictions, [[text] for text in references])
    for place, key in enumerate(RougeMetric.names):
        mean = sum(row[place] for row in GOLDEN.values()) / len(GOLDEN)
        assert ours[key] == pytest.approx(mean, abs=1e-4)


def test_rouge_l_and_lsum_are_two_numbers():
    """rougeL takes one subsequence of the whole text, so the order of the sentences counts."""
    *_, rouge_l, rouge_lsum = GOLDEN["reordered"]
    assert rouge_lsum > rouge_l + 10


def test_nothing_is_downloaded_to_split_sentences(monkeypatch):
    monkeypatch.setitem(sys.modules, "nltk.data", None)
    monkeypatch.setitem(sys.modules, "nltk.tokenize.punkt", None)
    assert RougeMetric().compute(["One. Two."], [["One. Two."]])["rougeLsum"] == 100.0


def test_recipes_name_what_changes_the_numbers():
    rouge = RougeMetric().recipe
    assert rouge.startswith(f"rouge_score {version('rouge-score')}, F1")
    assert "Porter's stemmer" in rouge and "no stemmer" in RougeMetric(use_stemmer=False).recipe
    assert "rougeLsum" in rouge and "rougeL:" in rouge
    assert "nearest reference" in PhonemeErrorMetric().recipe
    bleu = BleuMetric()
    bleu.compute(["a b"], [["a b"]])
    assert re.search(r"^bleu=nrefs:1.*tok:13a.* chrf=nrefs:1.*nc:6", bleu.recipe)
