"""A tokenizer as files in memory."""

import json
import tempfile
from pathlib import Path

from transformers import PreTrainedTokenizerBase

_CONFIG = "tokenizer_config.json"
_OF_THIS_MACHINE = ("is_local", "local_files_only", "name_or_path")
"""Where the tokenizer was loaded from."""


def tokenizer_files(tokenizer: PreTrainedTokenizerBase) -> dict[str, bytes]:
    """Name and content of each file that `from_pretrained` reads the tokenizer from."""
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        files = {f.name: f.read_bytes() for f in sorted(Path(folder).iterdir()) if f.is_file()}
    config = json.loads(files[_CONFIG])
    kept = {key: value for key, value in config.items() if key not in _OF_THIS_MACHINE}
    files[_CONFIG] = json.dumps(kept, ensure_ascii=False, indent=2).encode()
    return files
