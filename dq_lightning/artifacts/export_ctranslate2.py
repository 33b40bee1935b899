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

from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from dq_lightning.artifacts.atomic import replace_directory
from dq_lightning.artifacts.ctranslate2_codes import OwnCodes
from dq_lightning.artifacts.dequantized import dequantized_model
from dq_lightning.artifacts.export_command import export_parser, run_export
from dq_lightning.artifacts.optional_package import optional_package
from dq_lightning.artifacts.packed_student import PackedStudent
from dq_lightning.artifacts.vocabulary import Vocabulary, vocabulary_of
from dq_lightning.models.family import ModelFamily, family_named

# Attributes that transformers 5 took from its config classes and that the converter still reads.
_NORMS = {
    "bart": {"normalize_before": False, "normalize_embedding": True},
    "mbart": {"normalize_before": True, "normalize_embedding": True},
    "pegasus": {"normalize_before": True, "normalize_embedding": False},
}
# Of the converter, by transformers' names.
_ACTIVATIONS = (
    "gelu", "gelu_fast", "gelu_new", "gelu_python", "gelu_pytorch_tanh", "quick_gelu", "relu",
    "silu", "swish",
)  # fmt: skip


@dataclass(frozen=True)
class Exported:
    """Bytes of the weights on disk, and how many of their rows are not the student's own codes."""

    stored_bytes: int
    rounded_rows: int


def export_ctranslate2(student: PackedStudent, folder: Path, vocabulary: Vocabulary) -> Exported:
    """Write a model folder for CTranslate2 by its own converter.

    ValueError without ctranslate2, for an activation function that its converter does not know, and
    for stacks with different numbers of heads; the converter's own for a family that it does not.
    """
    model = dequantized_model(student)
    _check(family_named(student.family), model.config)
    codes = OwnCodes(student)
    converter = _converter(model, vocabulary, codes)
    with replace_directory(folder) as temporary:
        converter.convert(str(temporary), force=True)
    return Exported((folder / "model.bin").stat().st_size, codes.rounded_rows)


def _check(family: ModelFamily, config: PreTrainedConfig) -> None:
    """Refuse what the converter would get wrong without a word, or end in a KeyError."""
    encoder, decoder = (sizes.heads for sizes in family.layout.sizes(config))
    if encoder != decoder:
        raise ValueError(
            f"An encoder with other heads than the decoder's ({encoder} and {decoder}) cannot be "
            "exported to CTranslate2."
        )
    key = "dense_act_fn" if hasattr(config, "dense_act_fn") else "activation_function"
    function = getattr(config, key)
    if function not in _ACTIVATIONS:
        raise ValueError(
            f"The activation {function!r} cannot be exported to CTranslate2; "
            f"known: {', '.join(_ACTIVATIONS)}."
        )


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
