"""The contract of every data set: named splits of source texts with one or more references."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from datasets import Dataset, Features, List, Value

SPLITS = ("train", "validation", "test")
FEATURES = Features({"source": Value("string"), "references": List(Value("string"))})


class DataSource(ABC):
    """Pairs of a source text and its references, by split.

    `splits` returns a dict with any of the keys "train", "validation" and "test"; each value is a
    `datasets.Dataset` with the columns `source` (str) and `references` (list of str, at least one).
    `fingerprint` changes whenever that content would, without reading more than it must: the cache
    of tokenized data is keyed by it.
    """

    @abstractmethod
    def splits(self) -> dict[str, Dataset]: ...

    @abstractmethod
    def fingerprint(self) -> str: ...


def to_dataset(rows: Iterable[Mapping[str, Any]], where: str) -> Dataset:
    """Checked rows as a Dataset; a row without source or reference raises, named by `where`."""
    sources: list[str] = []
    references: list[list[str]] = []
    for number, row in enumerate(rows, start=1):
        check_row(row, where, number)
        sources.append(row["source"])
        references.append(list(row["references"]))
    if not sources:
        raise ValueError(f"{where} holds no rows; give a file or split with at least one pair.")
    return Dataset.from_dict({"source": sources, "references": references}, features=FEATURES)


def check_row(row: Mapping[str, Any], where: str, number: int) -> None:
    """Raise a ValueError that names the row unless it has a source and only real references."""
    if not isinstance(row["source"], str) or not row["source"].strip():
        raise ValueError(f"{where}, row {number}: the source is empty; fill it or drop the row.")
    references = row["references"]
    if not references or not all(isinstance(r, str) and r.strip() for r in references):
        raise ValueError(
            f"{where}, row {number}: the target is empty or no text; fill it or drop the row."
        )


def file_digest(path: Path) -> str:
    """SHA-256 of the file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):  # hashlib.file_digest needs Python 3.11
            digest.update(chunk)
    return digest.hexdigest()
