"""A tokenizer as files in memory."""

import tempfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from transformers import AutoTokenizer, PreTrainedTokenizerBase


def tokenizer_files(tokenizer: PreTrainedTokenizerBase) -> dict[str, bytes]:
    """Name and content of each file that `from_pretrained` reads the tokenizer from."""
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        return {file.name: file.read_bytes() for file in sorted(Path(folder).iterdir())}


def tokenizer_of(files: Mapping[str, bytes]) -> PreTrainedTokenizerBase | None:
    """The tokenizer among a student's files, of whatever folder; None where there are none."""
    if not files:
        return None
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            # the last part alone: a name such as ../../.profile must not lead anywhere else
            (Path(folder) / (PurePosixPath(name).name or "unnamed")).write_bytes(content)
        try:
            return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        except Exception as error:  # transformers raises many types here, and each means the same
            raise ValueError("The packed student holds no readable tokenizer.") from error
