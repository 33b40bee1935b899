"""ROUGE of generated summaries and answers."""

import re
from collections.abc import Sequence
from importlib.metadata import version

from rouge_score.rouge_scorer import RougeScorer

from dq_lightning.evaluation.metric import Metric

# A sentence ends at . ! or ? (closing quotes and brackets included) before white space, and at
# every line break. Differs from nltk's punkt, which must be downloaded and knows abbreviations:
# "Dr. Who" is two sentences here. Only rougeLsum reads sentences.
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|(?<=[.!?][\"'\u201d\u2019)\]])\s+|\s*\n\s*")


class RougeMetric(Metric):
    """F1 of rouge1, rouge2, rougeL and rougeLsum (Lin 2004), in percent, mean over rows.

    Google's `rouge_score` with Porter's stemmer; rougeLsum, the "R-L" of summarization tables, on
    sentences joined by line breaks. With several references each score takes its best one. The
    scorer reads ASCII letters and digits alone: other letters end a word.
    """

    names = ("rouge1", "rouge2", "rougeL", "rougeLsum")
    primary = "rougeLsum"
    higher_is_better = True

    def __init__(self, use_stemmer: bool = True) -> None:
        self.use_stemmer = use_stemmer
        self.scorer = RougeScorer(list(self.names), use_stemmer=use_stemmer)

    @property
    def recipe(self) -> str:
        stemmer = "Porter's stemmer" if self.use_stemmer else "no stemmer"
        return (
            f"rouge_score {version('rouge-score')}, F1 in percent, {stemmer}, best reference; "
            "rougeLsum: union of LCS over sentences, split after . ! ? and at line breaks (no "
            "punkt); rougeL: one LCS of the whole text"
        )

    def score(
        self, predictions: Sequence[str], references: Sequence[Sequence[str]]
    ) -> dict[str, float]:
        rows = [
            self.scorer.score_multi(
                [one_sentence_per_line(text) for text in texts], one_sentence_per_line(prediction)
            )
            for prediction, texts in zip(predictions, references, strict=True)
        ]
        return {
            name: 100.0 * sum(row[name].fmeasure for row in rows) / len(rows) for name in self.names
        }


def one_sentence_per_line(text: str) -> str:
    r"""Return `text` with a line break between its sentences.

    >>> one_sentence_per_line('It works. "Does it?" Yes, by 2.5 points!')
    'It works.\n"Does it?"\nYes, by 2.5 points!'
    """
    return "\n".join(part for part in _SENTENCE_END.split(text.strip()) if part)
