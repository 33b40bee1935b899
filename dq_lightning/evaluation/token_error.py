"""Phoneme and word error rates against the nearest of several pronunciations."""

from collections.abc import Sequence

from dq_lightning.evaluation.metric import Metric


class PhonemeErrorMetric(Metric):
    """PER and WER of grapheme-to-phoneme conversion, in percent.

    Tokens are separated by whitespace. A word is compared with the reference at the least edit
    distance (insertions, deletions, substitutions cost 1 each); among equally near references
    the shortest counts, so that a tie never lowers the rate, nor does the references' order.
    PER = 100 * sum of distances / sum of the lengths of those references (it can exceed 100);
    WER = 100 * share of words whose distance is not 0. The nearest reference is the rule of the
    G2P literature (Yao and Zweig 2015), which leaves ties open.
    """

    names = ("per", "wer")
    primary = "wer"
    higher_is_better = False

    @property
    def recipe(self) -> str:
        return (
            "tokens split at white space; edit distance to the nearest reference, ties to the "
            "shortest; per: distances / reference tokens, wer: words not exactly right, in percent"
        )

    def score(
        self, predictions: Sequence[str], references: Sequence[Sequence[str]]
    ) -> dict[str, float]:
        nearest = [
            nearest_reference(prediction.split(), [text.split() for text in texts])
            for prediction, texts in zip(predictions, references, strict=True)
        ]
        errors = sum(distance for distance, _ in nearest)
        tokens = sum(length for _, length in nearest)
        wrong = sum(distance > 0 for distance, _ in nearest)
        return {"per": 100.0 * errors / tokens, "wer": 100.0 * wrong / len(nearest)}


def nearest_reference(
    prediction: Sequence[str], references: Sequence[Sequence[str]]
) -> tuple[int, int]:
    """Return (distance, length) of the nearest reference; ties go to the shortest.

    >>> nearest_reference("K AE T".split(), ["K AE T S".split(), "K AA T".split()])
    (1, 3)
    """
    return min((edit_distance(prediction, reference), len(reference)) for reference in references)


def edit_distance(left: Sequence[str], right: Sequence[str]) -> int:
    """Return the Levenshtein distance of two token sequences.

    >>> edit_distance("T AH M EY T OW".split(), "T AH M AA T OW Z".split())
    2
    """
    if left == right:
        return 0
    # One row of the table at a time: row[j] is the distance of left[:i] to right[:j].
    row = list(range(len(right) + 1))
    for i, left_token in enumerate(left, start=1):
        diagonal, row[0] = row[0], i
        for j, right_token in enumerate(right, start=1):
            substituted = diagonal + (left_token != right_token)
            diagonal = row[j]
            row[j] = min(substituted, row[j] + 1, row[j - 1] + 1)
    return row[-1]
