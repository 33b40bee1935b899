"""BLEU and chrF of translations."""

from collections.abc import Sequence
from itertools import zip_longest

from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from dq_lightning.evaluation.metric import Metric


class BleuMetric(Metric):
    """Corpus BLEU (Papineni et al. 2002) and chrF2 (Popovic 2015) as sacrebleu computes them.

    Texts are detokenized: sacrebleu tokenizes by itself (`tokenize`, for instance 13a, intl, zh,
    char). Rows may have different numbers of references.
    """

    names = ("bleu", "chrf")
    primary = "bleu"
    higher_is_better = True

    def __init__(self, tokenize: str = "13a", lowercase: bool = False) -> None:
        self.bleu = BLEU(tokenize=tokenize, lowercase=lowercase)
        self.chrf = CHRF(lowercase=lowercase)

    @property
    def recipe(self) -> str:
        """sacrebleu's signatures of both scores; the number of references is known after `compute`.

        `nrefs:var` says that rows had different numbers of references.
        """
        scores = {"bleu": self.bleu, "chrf": self.chrf}
        return " ".join(f"{name}={scorer.get_signature()}" for name, scorer in scores.items())

    def score(
        self, predictions: Sequence[str], references: Sequence[Sequence[str]]
    ) -> dict[str, float]:
        # sacrebleu wants one stream per reference number, with None where a row has no such one.
        streams = list(zip_longest(*references))
        return {
            "bleu": float(self.bleu.corpus_score(predictions, streams).score),
            "chrf": float(self.chrf.corpus_score(predictions, streams).score),
        }
