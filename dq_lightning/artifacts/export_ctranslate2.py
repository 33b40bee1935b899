"""``python -m dq_lightning.artifacts.export_ctranslate2 <run dir or model.dq> --output DIR``.

Writes the student for CTranslate2 with int8 weights, a scale a row. Codes of an 8-bit student stay
what they are where a row's largest code is 127 (every symmetric quantizer without a clip), and so
do ternary ones, in four times their bytes; CTranslate2 has no narrower weights. Its activations are
int8 by token in every linear layer, whatever the student's recipe says; its attention is float.
"""

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from dq_lightning.artifacts.atomic import replace_directory
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


def export_ctranslate2(
    student: PackedStudent, folder: Path, vocabulary: Vocabulary, quantization: str = "int8"
) -> int:
    """Write a model folder for CTranslate2 by its own converter; give the bytes of its weights.

    quantization: of the weights, as CTranslate2 names it. ValueError without ctranslate2 or for a
    family that its converter does not know.
    """
    converter = _converter(dequantized_model(student), vocabulary)
    with replace_directory(folder) as temporary:
        try:
            converter.convert(str(temporary), quantization=quantization, force=True)
        except (NotImplementedError, AttributeError, ValueError) as error:
            raise ValueError(
                f"CTranslate2 cannot convert a {student.family} student: {error}"
            ) from error
    return (folder / "model.bin").stat().st_size


def _converter(model: PreTrainedModel, vocabulary: Vocabulary) -> Any:
    """CTranslate2's converter over a model in memory: it asks a folder for the config alone."""
    converters = optional_package("ctranslate2.converters")

    class InMemory(converters.TransformersConverter):
        def _load(self) -> Any:
            with tempfile.TemporaryDirectory() as folder:
                config = Path(folder) / "config.json"
                config.write_text(json.dumps({"model_type": model.config.model_type}))
                self._model_name_or_path = folder
                return super()._load()

        def load_model(self, *_: Any, **__: Any) -> PreTrainedModel:
            for name, value in _NORMS.get(model.config.model_type, {}).items():
                setattr(model.config, name, value)
            if hasattr(model.config, "scale_decoder_outputs"):
                # it takes "tied" for "scaled"
                model.config.tie_word_embeddings = model.config.scale_decoder_outputs
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
        return export_ctranslate2(student, folder, vocabulary_of(student, tokenizer))

    run_export(given, export)


if __name__ == "__main__":
    main()
