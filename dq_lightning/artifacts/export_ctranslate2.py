"""``python -m dq_lightning.artifacts.export_ctranslate2 <run dir or model.dq> --output DIR``.

Writes the student for CTranslate2 with int8 weights, a scale a row: the student's own codes where
its weight quantizer has one scale a row or matrix and no zero point, whatever their bits, and else
values rounded anew. CTranslate2 has no narrower weights. Its activations are int8 by token in every
linear layer, whatever the student's recipe says; its attention is float.
"""

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from dq_lightning.artifacts.atomic import replace_directory
from dq_lightning.artifacts.ctranslate2_codes import OwnCodes
from dq_lightning.artifacts.dequantized import dequantized_model
from dq_lightning.artifacts.export_command import export_parser, run_export
from dq_lightning.artifacts.optional_package import optional_package
from dq_lightning.artifacts.packed_student import PackedStudent
from dq_lightning.artifacts.vocabulary import Vocabulary, vocabulary_of

# Attributes that transformers 5 took from its config classes and that the converter still reads.
_NORMS = {
    "bart": {"normalize_before": False, "normalize_embedding": True},
    "mbart": {"normalize_before": True, "normalize_embedding": True},
    "pegasus": {"normalize_before": True, "normalize_embedding": False},
}


@dataclass(frozen=True)
class Exported:
    """Bytes of the weights on disk, and how many of their rows are not the student's own codes."""

    stored_bytes: int
    rounded_rows: int


def export_ctranslate2(student: PackedStudent, folder: Path, vocabulary: Vocabulary) -> Exported:
    """Write a model folder for CTranslate2 by its own converter.

    ValueError without ctranslate2 or for a family that its converter does not know.
    """
    codes = OwnCodes(student)
    converter = _converter(dequantized_model(student), vocabulary, codes)
    with replace_directory(folder) as temporary:
        try:
            converter.convert(str(temporary), force=True)
        except (NotImplementedError, AttributeError, ValueError) as error:
            raise ValueError(
                f"CTranslate2 cannot convert a {student.family} student: {error}"
            ) from error
    return Exported((folder / "model.bin").stat().st_size, codes.rounded_rows)


def _converter(model: PreTrainedModel, vocabulary: Vocabulary, codes: OwnCodes) -> Any:
    """CTranslate2's converter over a model in memory: it asks a folder for the config alone."""
    converters = optional_package("ctranslate2.converters")

    class InMemory(converters.TransformersConverter):
        def _load(self) -> Any:
            with tempfile.TemporaryDirectory() as folder:
                config = Path(folder) / "config.json"
                config.write_text(json.dumps({"model_type": model.config.model_type}))
                self._model_name_or_path = folder
                spec = super()._load()
            codes.give(spec)
            return spec

        def load_model(self, *_: Any, **__: Any) -> PreTrainedModel:
            for name, value in _NORMS.get(model.config.model_type, {}).items():
                setattr(model.config, name, value)
            if model.config.model_type in ("t5", "mt5"):
                # it takes "tied" for "scaled"; mT5 is tied always and scaled never
                scaled = getattr(model.config, "scale_decoder_outputs", False)
                model.config.tie_word_embeddings = scaled
            return model

        def load_tokenizer(self, *_: Any, **__: Any) -> Vocabulary:
            return vocabulary

    return InMemory("")


def main(arguments: Sequence[str] | None = None) -> None:
    """Export a packed student, or say in one sentence why that cannot be."""
    given = export_parser("export_ctranslate2", __doc__).parse_args(arguments)

    def export(
        student: PackedStudent, folder: Path, tokenizer: PreTrainedTokenizerBase | None
    ) -> int:
        exported = export_ctranslate2(student, folder, vocabulary_of(student, tokenizer))
        if exported.rounded_rows:
            print(f"{exported.rounded_rows:,} rows are not the student's own codes, but rounded.")
        return exported.stored_bytes

    run_export(given, export)


if __name__ == "__main__":
    main()
