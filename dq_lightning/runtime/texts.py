"""Texts to source tokens and generated tokens to texts, as the student's own run did it."""

import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from dq_lightning.artifacts.packed_student import PackedStudent
from dq_lightning.data.languages import set_languages

# A fast tokenizer keeps the truncation of its last call, and those of `encode` differ in it.
_ENCODING = threading.Lock()


@dataclass(frozen=True)
class Source:
    """Token ids of one text, special tokens included; cut: it was longer than the student reads."""

    token_ids: list[int]
    cut: bool


@dataclass(frozen=True)
class Texts:
    """A student's tokenizer and the way its sources become tokens.

    max_source_length: tokens, special tokens included; None: no limit. source_prefix: stands
    before every text.
    """

    tokenizer: PreTrainedTokenizerBase
    max_source_length: int | None = None
    source_prefix: str = ""

    def encode(self, texts: Sequence[str]) -> list[Source]:
        """One source a text; a text that is too long loses its end. Threads may call it at once."""
        with _ENCODING:
            return self._sources(texts)

    def decode(self, rows: Sequence[Sequence[int]]) -> list[str]:
        """One text a row of token ids, without special tokens."""
        texts = (self.tokenizer.decode(list(row), skip_special_tokens=True) for row in rows)
        return [text.strip() for text in texts]  # pyright: ignore[reportAttributeAccessIssue]

    def _sources(self, texts: Sequence[str]) -> list[Source]:
        given: dict[str, Any] = {"max_length": self.max_source_length, "truncation": True}
        whole = self._ids(texts, {})
        limit = self.max_source_length or max(map(len, whole), default=0)
        sources = [Source(ids, cut=len(ids) > limit) for ids in whole]
        long = [place for place, source in enumerate(sources) if source.cut]
        shortened = self._ids([texts[place] for place in long], given)
        for place, ids in zip(long, shortened, strict=True):
            sources[place] = Source(ids, cut=True)
        return sources

    def _ids(self, texts: Sequence[str], options: Mapping[str, Any]) -> list[list[int]]:
        if not texts:
            return []
        prefixed = [self.source_prefix + text for text in texts]
        return self.tokenizer(prefixed, verbose=False, **options)["input_ids"]  # pyright: ignore


def texts_of(student: PackedStudent) -> Texts:
    """The texts of a packed student; ValueError where it holds no readable tokenizer."""
    text: Mapping[str, Any] = student.text
    tokenizer = _tokenizer(student.files)
    set_languages(tokenizer, text.get("source_language"), text.get("target_language"))
    return Texts(tokenizer, text.get("max_source_length"), text.get("source_prefix", ""))


def _tokenizer(files: Mapping[str, bytes]) -> PreTrainedTokenizerBase:
    """The tokenizer among a student's files, by way of the disk: transformers reads files only."""
    with tempfile.TemporaryDirectory(prefix="dq_lightning_") as folder:
        for name, content in files.items():
            (Path(folder) / name).write_bytes(content)
        try:
            return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        except Exception as error:  # transformers raises many types here, and each means the same
            raise ValueError(
                "The packed student holds no readable tokenizer; use generate_ids with token ids "
                "of your own, or pack it again from its run."
            ) from error
