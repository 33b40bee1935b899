"""Training pairs whose targets a teacher wrote."""

import hashlib
import json
from collections.abc import Sequence
from typing import final

from datasets import Dataset

from dq_lightning.data.source import DataSource, to_dataset

TARGETS = ("replace", "add")


@final
class PseudoLabels(DataSource):
    """A training split alone: each distinct source with the target generated for it.

    (Sequence-level knowledge distillation, Kim & Rush 2016, arXiv 1606.07947, section 3.2.)
    rows: training rows with the columns source and references. texts: one for each of
    `distinct(rows)`. targets: `replace` trains on the texts, `add` on a source's labels too. A
    source whose text is empty keeps its labels; `num_empty` counts those.
    """

    def __init__(self, rows: Dataset, texts: Sequence[str], targets: str = "replace") -> None:
        if targets not in TARGETS:
            raise ValueError(f"pseudo_label.targets={targets} is unknown; write replace or add.")
        self.rows = rows
        self.texts = list(texts)
        self.targets = targets
        self.num_empty = sum(not text.strip() for text in texts)

    def fingerprint(self) -> str:
        digest = hashlib.sha256(self.targets.encode())
        for row in self._pairs():
            digest.update(json.dumps(row).encode())
        return f"pseudo-labels-1-{digest.hexdigest()}"

    def splits(self) -> dict[str, Dataset]:
        return {"train": to_dataset(self._pairs(), "the teacher's targets")}

    def _pairs(self) -> list[dict[str, str | list[str]]]:
        labels: dict[str, list[str]] = {}
        for source, references in zip(self.rows["source"], self.rows["references"], strict=True):
            labels.setdefault(source, []).extend(references)
        return [
            {"source": source, "references": self._targets(own, text)}
            for (source, own), text in zip(labels.items(), self.texts, strict=True)
        ]

    def _targets(self, labels: list[str], text: str) -> list[str]:
        written = [text] if text.strip() else []
        return labels + written if self.targets == "add" or not written else written


def distinct(rows: Dataset) -> Dataset:
    """The first row of each source: rows that differ in their reference alone ask the same."""
    first: dict[str, int] = {}
    for position, source in enumerate(rows["source"]):
        first.setdefault(source, position)
    return rows.select(list(first.values()))
