"""What a metric is: texts in, named numbers out."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar


class Metric(ABC):
    """Scores of a whole corpus, in percent.

    `names` lists the keys that `compute` returns, `primary` the one that chooses checkpoints and
    heads tables, and `higher_is_better` says which direction of all of them is good.
    """

    names: ClassVar[tuple[str, ...]]
    primary: ClassVar[str]
    higher_is_better: ClassVar[bool]

    def compute(
        self, predictions: Sequence[str], references: Sequence[Sequence[str]]
    ) -> dict[str, float]:
        """Return the scores of `predictions`, one row each with at least one reference.

        An empty prediction is an answer and is scored as one. Raises ValueError for no rows at
        all, for unequal numbers of rows, and for a row whose references are missing or blank.
        """
        if not predictions or len(predictions) != len(references):
            raise ValueError(
                f"{type(self).__name__} got {len(predictions)} predictions and {len(references)} "
                "rows of references: give one row of references per prediction, at least one row"
            )
        for row, texts in enumerate(references):
            if not texts or not all(text.strip() for text in texts):
                raise ValueError(
                    f"{type(self).__name__} got a missing or blank reference in row {row}: give "
                    "every row at least one reference text, or leave the row out"
                )
        return self.score(predictions, references)

    @property
    @abstractmethod
    def recipe(self) -> str:
        """What to quote beside the scores: scorer and version, settings, treatment of the texts.

        Read after `compute`, which may add to it (sacrebleu counts the references).
        """

    @abstractmethod
    def score(
        self, predictions: Sequence[str], references: Sequence[Sequence[str]]
    ) -> dict[str, float]:
        """Return the scores of rows that `compute` has checked."""
