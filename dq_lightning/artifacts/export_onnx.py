"""``python -m dq_lightning.artifacts.export_onnx <run dir or model.dq> --output DIR``.

Writes encoder.onnx, decoder.onnx and the weights that both read, weights.bin, for onnxruntime:
linear layers of 2, 4 and 8 bits as MatMulNBits with the student's own codes and scales, embeddings
as a lookup in the same codes. onnxruntime quantizes activations by blocks of 128 columns
(--float-activations: not at all), whatever the student's recipe says; attention is float.

encoder.onnx: input_ids, attention_mask (batch, source) -> cross.<layer>.key, cross.<layer>.value.
decoder.onnx: input_ids (batch, length), attention_mask of the source, past.<layer>.key and .value
(of length 0 at first), cross.<layer>.key and .value -> logits, present.<layer>.key and .value.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dq_lightning.artifacts.atomic import replace_directory, strict_json
from dq_lightning.artifacts.export_command import export_parser, run_export
from dq_lightning.artifacts.onnx_attention import KeyValue
from dq_lightning.artifacts.onnx_bart import BartOnnx
from dq_lightning.artifacts.onnx_builder import OnnxGraph, WeightFile
from dq_lightning.artifacts.onnx_family import DecoderInputs, OnnxFamily
from dq_lightning.artifacts.onnx_t5 import T5Onnx
from dq_lightning.artifacts.packed_student import PackedStudent

ENCODER, DECODER, WEIGHTS = "encoder.onnx", "decoder.onnx", "weights.bin"
INT8_ACTIVATIONS, FLOAT_ACTIVATIONS = 4, 1
"""MatMulNBits' accuracy_level."""


def export_onnx(student: PackedStudent, folder: Path, *, float_activations: bool = False) -> int:
    """Write the folder; give its bytes. ValueError for codes that ONNX cannot hold."""
    family = T5Onnx(student) if student.family in ("t5", "mt5") else BartOnnx(student)
    level = FLOAT_ACTIVATIONS if float_activations else INT8_ACTIVATIONS
    with replace_directory(folder) as temporary:
        with (temporary / WEIGHTS).open("wb") as stream:
            weights = WeightFile(stream, WEIGHTS)
            _write_encoder(OnnxGraph(student, weights, level), family, temporary / ENCODER)
            _write_decoder(OnnxGraph(student, weights, level), family, temporary / DECODER)
        settings = {"config": student.config, "generation": student.generation}
        (temporary / "student.json").write_text(strict_json(settings, indent=2), encoding="utf-8")
    return sum(file.stat().st_size for file in folder.iterdir())


def _write_encoder(graph: OnnxGraph, family: OnnxFamily, file: Path) -> None:
    cross = family.encode(graph, "input_ids", "attention_mask")
    inputs = {name: (np.int64, ["batch", "source"]) for name in ("input_ids", "attention_mask")}
    graph.write(file, inputs, _outputs(graph, "cross", cross, family, "source"))


def _write_decoder(graph: OnnxGraph, family: OnnxFamily, file: Path) -> None:
    shapes = {"input_ids": ["batch", "length"], "attention_mask": ["batch", "source"]}
    inputs: dict[str, tuple[type, Sequence[str | int]]] = {
        name: (np.int64, shape) for name, shape in shapes.items()
    }
    for kind, length in (("past", "past"), ("cross", "source")):
        for name in _names(kind, family.num_layers):
            inputs[name] = np.float32, _shape(family, length)
    past, cross = (_pairs(_names(kind, family.num_layers)) for kind in ("past", "cross"))
    given = DecoderInputs("input_ids", "attention_mask", past, cross)
    logits, present = family.decode(graph, given)
    graph.name(logits, "logits")
    outputs = {"logits": ["batch", "length", "vocabulary"]}
    graph.write(file, inputs, outputs | _outputs(graph, "present", present, family, "all"))


def _outputs(
    graph: OnnxGraph, kind: str, values: Sequence[KeyValue], family: OnnxFamily, length: str
) -> dict[str, list[str | int]]:
    flat = [value for pair in values for value in pair]
    names = _names(kind, family.num_layers)
    for value, name in zip(flat, names, strict=True):
        graph.name(value, name)
    return {name: _shape(family, length) for name in names}


def _names(kind: str, layers: int) -> list[str]:
    return [f"{kind}.{layer}.{part}" for layer in range(layers) for part in ("key", "value")]


def _pairs(names: Sequence[str]) -> list[KeyValue]:
    return list(zip(names[::2], names[1::2], strict=True))


def _shape(family: OnnxFamily, length: str) -> list[str | int]:
    return ["batch", family.heads.number, length, family.heads.size]


def main(arguments: Sequence[str] | None = None) -> None:
    """Export a packed student, or say in one sentence why that cannot be."""
    parser = export_parser("export_onnx", __doc__)
    parser.add_argument("--float-activations", action="store_true", help="slower, more exact")
    given = parser.parse_args(arguments)

    def export(student: PackedStudent, folder: Path, _: object) -> int:
        return export_onnx(student, folder, float_activations=given.float_activations)

    run_export(given, export)


if __name__ == "__main__":
    main()
