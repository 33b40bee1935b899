"""Text pairs to token ids, cached on disk by content: the same input is never tokenized twice."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, DatasetDict
from filelock import FileLock
from transformers import PreTrainedTokenizerBase

from dq_lightning.data.source import DataSource

_FORMAT = 2  # raise when what is stored changes: older caches are then left alone


@dataclass(frozen=True)
class TokenizationConfig:
    """How text becomes ids. Lengths count tokens, special tokens included."""

    max_source_length: int
    max_target_length: int
    source_prefix: str = ""


def tokenizer_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """SHA-256 of everything about the tokenizer that decides its ids."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    state = backend.to_str() if backend is not None else json.dumps(tokenizer.get_vocab())
    marks = [getattr(tokenizer, name, None) for name in ("src_lang", "tgt_lang")]
    return hashlib.sha256((state + repr(marks)).encode()).hexdigest()


def tokenized_splits(
    source: DataSource,
    tokenizer: PreTrainedTokenizerBase,
    config: TokenizationConfig,
    cache_dir: Path,
    limit_train: int | None = None,
) -> tuple[DatasetDict, str]:
    """All splits with the columns source, references, input_ids, labels, index; and their key.

    Training rows are expanded, one row a reference; validation and test keep one row a source,
    whose labels are the first reference. limit_train: tokenize a fixed draw of so many training
    rows and no more. Concurrent runs wait for the one that tokenizes.
    """
    identity = [
        _FORMAT,
        source.fingerprint(),
        tokenizer_digest(tokenizer),
        asdict(config),
        limit_train,
    ]
    key = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:24]
    folder = cache_dir / "tokenized" / key
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            _write(folder, source, tokenizer, config, limit_train)
    return DatasetDict.load_from_disk(str(folder)), key


def _write(
    folder: Path,
    source: DataSource,
    tokenizer: PreTrainedTokenizerBase,
    config: TokenizationConfig,
    limit_train: int | None,
) -> None:
    encode = _encoder(tokenizer, config)
    splits = DatasetDict()
    for name, rows in source.splits().items():
        expanded = rows
        if name == "train":
            expanded = subset(rows.map(_expand, batched=True, desc=None), limit_train)
        indexed = expanded.add_column("index", list(range(len(expanded))))  # pyright: ignore[reportCallIssue]
        splits[name] = indexed.map(encode, batched=True, desc=f"Tokenizing {name}")
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        backend.no_truncation()  # else the tokenizer is saved as one that cuts at these lengths
    partial = folder.with_name(f"{folder.name}.{os.getpid()}.partial")
    try:
        splits.save_to_disk(str(partial))
        partial.rename(folder)  # a killed run leaves only a folder that nobody reads
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _expand(rows: dict[str, list[Any]]) -> dict[str, list[Any]]:
    pairs = [
        (source, reference)
        for source, references in zip(rows["source"], rows["references"], strict=True)
        for reference in references
    ]
    return {"source": [s for s, _ in pairs], "references": [[r] for _, r in pairs]}


def _encoder(
    tokenizer: PreTrainedTokenizerBase, config: TokenizationConfig
) -> Callable[[dict[str, list[Any]]], dict[str, list[Any]]]:
    def encode(rows: dict[str, list[Any]]) -> dict[str, list[Any]]:
        inputs = tokenizer(
            [config.source_prefix + text for text in rows["source"]],
            max_length=config.max_source_length,
            truncation=True,
        )
        targets = tokenizer(
            text_target=[references[0] for references in rows["references"]],
            max_length=config.max_target_length,
            truncation=True,
        )
        return {"input_ids": inputs["input_ids"], "labels": targets["input_ids"]}

    return encode


def subset(rows: Dataset, limit: int | None) -> Dataset:
    """`limit` rows drawn without replacement, always the same, in their order (all for None).

    Drawn, because the first rows of a sorted file are no fair sample.
    """
    if limit is None or limit >= len(rows):
        return rows
    drawn = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))[:limit]
    return rows.select(sorted(drawn.tolist()))
