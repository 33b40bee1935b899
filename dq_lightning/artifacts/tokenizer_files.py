"""A tokenizer as files in memory."""

import tempfile
from pathlib import Path

from transformers import PreTrainedTokenizerBase


def tokenizer_files(tokenizer: PreTrainedTokenizerBase) -> dict[str, bytes]:
    """Name and content of each file that `from_pretrained` reads the tokenizer from."""
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        return {file.name: file.read_bytes() for file in sorted(Path(folder).iterdir())}
