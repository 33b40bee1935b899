"""A packed student as named tensors and one JSON text, and back."""

import json
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dq_lightning.artifacts.packed_matrix import PackedMatrix
from dq_lightning.artifacts.packed_student import PackedStudent
from dq_lightning.quantization.description import QuantizerDescription

_MATRIX = ("fields", "scale", "zero_point", "zero_code")
_STUDENT = {
    "family": str, "config": dict, "generation": dict, "text": dict, "uses": dict,
    "matrices": dict, "inputs": dict, "operands": dict,
}  # fmt: skip
_SPEC = {
    "bits": int, "columns": int, "lowest": int, "divides": bool, "group_size": (int, type(None)),
}  # fmt: skip
_QUANTIZER = {"kind": str, "arguments": dict}
_DEEPEST = 12
Types = type | tuple[type, ...]
Tensors = dict[str, Tensor]


def to_tensors(student: PackedStudent) -> tuple[dict[str, Tensor], str]:
    """Tensors by their name in the file, and the metadata."""
    tensors = {f"tensors/{name}": tensor for name, tensor in student.tensors.items()}
    tensors |= {f"files/{name}": _bytes_to(content) for name, content in student.files.items()}
    matrices = {name: _matrix_to(tensors, name, m) for name, m in student.matrices.items()}
    metadata = {
        "family": student.family,
        "config": student.config,
        "generation": student.generation,
        "text": student.text,
        "uses": student.uses,
        "matrices": matrices,
        "inputs": {
            name: _quantizer_to(tensors, f"inputs/{name}", described)
            for name, described in student.inputs.items()
        },
        "operands": {
            name: {
                operand: _quantizer_to(tensors, f"operands/{name}/{operand}", described)
                for operand, described in operands.items()
            }
            for name, operands in student.operands.items()
        },
    }
    text = json.dumps(
        metadata, ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":")
    )
    return {name: tensor.contiguous() for name, tensor in tensors.items()}, text


def from_tensors(tensors: Mapping[str, Tensor], metadata: str) -> PackedStudent:
    """What `to_tensors` took apart; ValueError where names or JSON types are others."""
    data = _object(_parsed(metadata), _STUDENT, "the metadata")
    groups = _grouped(tensors)
    student = PackedStudent(
        family=data["family"],
        config=data["config"],
        generation=data["generation"],
        text=data["text"],
        uses=_each(data["uses"], str, "uses"),
        matrices={
            name: _matrix_from(groups.pop(f"matrices/{name}", {}), spec, name)
            for name, spec in data["matrices"].items()
        },
        tensors=groups.pop("tensors", {}),
        files={name: _bytes_from(name, t) for name, t in groups.pop("files", {}).items()},
        inputs={
            name: _quantizer_from(groups, f"inputs/{name}", described)
            for name, described in data["inputs"].items()
        },
        operands={
            name: {
                operand: _quantizer_from(groups, f"operands/{name}/{operand}", described)
                for operand, described in operands.items()
            }
            for name, operands in _each(data["operands"], dict, "operands").items()
        },
    )
    if groups:
        raise ValueError(f"it has tensors of no use in {min(groups)!r}")
    return student


def _matrix_to(tensors: dict[str, Tensor], name: str, matrix: PackedMatrix) -> dict[str, Any]:
    for part in _MATRIX:
        tensor: Tensor | None = getattr(matrix, part)
        if tensor is not None:
            tensors[f"matrices/{name}/{part}"] = tensor
    return {
        "bits": matrix.bits,
        "columns": matrix.columns,
        "lowest": matrix.lowest,
        "divides": matrix.divides,
        "group_size": matrix.group_size,
    }


def _quantizer_to(
    tensors: dict[str, Tensor], where: str, described: QuantizerDescription | None
) -> dict[str, Any] | None:
    if described is None:
        return None
    tensors.update({f"{where}/{name}": tensor for name, tensor in described.state.items()})
    return {"kind": described.kind, "arguments": described.arguments}


def _bytes_to(content: bytes) -> Tensor:
    if not content:
        return torch.empty(0, dtype=torch.uint8)  # frombuffer refuses an empty one
    return torch.frombuffer(bytearray(content), dtype=torch.uint8)


def _parsed(text: str) -> Any:
    def refuse(constant: str) -> Any:
        raise ValueError(f"{constant} is no number")

    try:
        content = json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"its metadata is no JSON ({error})") from error
    _check_plain(content, _DEEPEST)
    return content


def _check_plain(value: Any, depth: int) -> None:
    """Refuse what is nested too deep and numbers beyond 64 bits."""
    if depth == 0:
        raise ValueError(f"its metadata is nested more than {_DEEPEST} deep")
    if isinstance(value, (int, float)) and not abs(value) < 2**63:
        raise ValueError("its metadata has a number beyond 64 bits")
    if isinstance(value, (dict, list)):
        for item in value.values() if isinstance(value, dict) else value:
            _check_plain(item, depth - 1)


def _object(value: Any, fields: Mapping[str, Types], where: str) -> dict[str, Any]:
    """The JSON object, which must have exactly these fields of these types."""
    if not isinstance(value, dict) or value.keys() != fields.keys():
        raise ValueError(f"{where} must have the fields {', '.join(fields)}")
    for name, types in fields.items():
        _check_type(value[name], types, f"{where}: {name}")
    return value


def _each(values: dict[str, Any], types: Types, where: str) -> dict[str, Any]:
    for name, value in values.items():
        _check_type(value, types, f"{where}: {name}")
    return values


def _check_type(value: Any, types: Types, where: str) -> None:
    allowed = types if isinstance(types, tuple) else (types,)
    if type(value) not in allowed:  # a bool is no int here
        names = " or ".join(kind.__name__ for kind in allowed)
        raise ValueError(f"{where} is {type(value).__name__} instead of {names}")


def _grouped(tensors: Mapping[str, Tensor]) -> dict[str, Tensors]:
    """Tensors by what stands before the last slash of their names, then by what stands after."""
    groups: dict[str, Tensors] = defaultdict(dict)
    for name, tensor in tensors.items():
        group, _, last = name.rpartition("/")
        groups[group][last] = tensor
    return dict(groups)


def _matrix_from(parts: Tensors, spec: Any, name: str) -> PackedMatrix:
    checked = _object(spec, _SPEC, f"matrix {name}")
    if not {"fields", "scale"} <= parts.keys() <= set(_MATRIX):
        raise ValueError(f"matrix {name} has the parts {sorted(parts)}")
    return PackedMatrix(**parts, **checked)  # pyright: ignore[reportArgumentType]


def _quantizer_from(
    groups: dict[str, Tensors], where: str, described: Any
) -> QuantizerDescription | None:
    if described is None:
        return None
    checked = _object(described, _QUANTIZER, where)
    plain = (int, float, str, bool, type(None))
    arguments = _each(checked["arguments"], plain, where)
    return QuantizerDescription(checked["kind"], arguments, groups.pop(where, {}))


def _bytes_from(name: str, tensor: Tensor) -> bytes:
    if tensor.dtype != torch.uint8 or tensor.dim() != 1:
        raise ValueError(f"its file {name} is not made of bytes")
    return tensor.numpy().tobytes()
