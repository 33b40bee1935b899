"""The command line that all exporters share."""

import argparse
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from dq_lightning.artifacts.packed_file import read_packed
from dq_lightning.artifacts.packed_student import PackedStudent

Export = Callable[[PackedStudent, Path, PreTrainedTokenizerBase | None], int]


def export_parser(module: str, description: str | None) -> argparse.ArgumentParser:
    """Where the student is, and where it goes."""
    parser = argparse.ArgumentParser(
        f"python -m dq_lightning.artifacts.{module}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", type=Path, help="a packed file, or a run directory with one")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="a new folder")
    return parser


def run_export(given: argparse.Namespace, export: Export) -> None:
    """Export, tokenizer included; else one sentence on stderr and exit with 1."""
    try:
        file = packed_file_of(given.model)
        if given.output.exists() and any(given.output.iterdir()):
            raise ValueError(f"{given.output} exists already; give --output a new folder.")
        student = read_packed(file)
        tokenizer = tokenizer_of(student.files)
        size = export(student, given.output, tokenizer)
        if tokenizer is not None:
            tokenizer.save_pretrained(given.output)
    except (ValueError, OSError) as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        raise SystemExit(1) from error
    print(f"{given.output}: {size:,} bytes ({file}: {file.stat().st_size:,})")


def tokenizer_of(files: Mapping[str, bytes]) -> PreTrainedTokenizerBase | None:
    """The tokenizer among a student's files, of whatever folder; None where there is none."""
    if not any(PurePosixPath(name).name == "tokenizer_config.json" for name in files):
        return None
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            # the last part alone: a name such as ../../.profile must not lead anywhere else
            (Path(folder) / (PurePosixPath(name).name or "unnamed")).write_bytes(content)
        try:
            return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        except Exception as error:  # transformers raises many types here, and each means the same
            raise ValueError("The packed student holds no readable tokenizer.") from error


def packed_file_of(path: Path) -> Path:
    """The packed file at a path, or that of a run directory; ValueError where there is none."""
    file = path / "model.dq" if path.is_dir() else path
    if not file.is_file():
        how = f"pack the run first: python -m dq_lightning.artifacts.pack {path}"
        raise ValueError(f"There is no {file}; {how if path.is_dir() else 'give a packed file'}.")
    return file
