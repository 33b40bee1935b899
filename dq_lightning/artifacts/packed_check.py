"""Whether a packed student is whole: every part fits the model that its config describes."""

import math
import re
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from dq_lightning.artifacts.bit_fields import WIDTHS
from dq_lightning.artifacts.packed_config import config_keys, config_of
from dq_lightning.artifacts.packed_matrix import PackedMatrix
from dq_lightning.artifacts.packed_student import PackedStudent
from dq_lightning.models.family import ModelFamily, family_named
from dq_lightning.models.layout import HEADS
from dq_lightning.quantization.description import QuantizerDescription

OPERANDS = {"query", "key", "value", "probabilities"}
_TEXT = {
    "max_source_length": (int,), "source_prefix": (str,),
    "source_language": (str, type(None)), "target_language": (str, type(None)),
}  # fmt: skip
_TOKEN_LISTS = {"suppress_tokens": 1, "begin_suppress_tokens": 1, "bad_words_ids": 2}
"""Generation settings that are lists of tokens, and how deep the tokens are in them."""
_LARGEST_SIZE = 2**24
_LARGEST_TABLE = 2**25
_FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}\.(json|txt|md|jinja|model|spm|bpe|vocab)")
_HALF_OR_FLOAT = (torch.float16, torch.float32)


def check_packed(student: PackedStudent) -> None:
    """Raise ValueError, with the reason, for anything that a runtime could stumble over.

    The model is built without memory for its weights, and only after its config's sizes have been
    compared with what is there.
    """
    for name, matrix in student.matrices.items():
        _check_matrix(name, matrix)
    for name, tensor in student.tensors.items():
        _check_floats(name, tensor)
    family = family_named(student.family)
    _check_config(student, family)
    model = _empty_model(student, family)
    _check_uses(student, family, model)
    _check_layers(student, family, model)
    _check_tokens(student.generation, model.get_parameter(f"{family.head}.weight").shape[0])
    for name, value in student.text.items():
        if type(value) not in _TEXT.get(name, ()) or (isinstance(value, int) and value < 1):
            raise ValueError(f"it cannot have the text setting {name}={value!r}")
    for name in student.files:
        if not _FILE.fullmatch(name):
            raise ValueError(f"it has a file {name!r}, a name or a type that no tokenizer needs")


def _check_config(student: PackedStudent, family: ModelFamily) -> None:
    """Refuse keys that no config of the family has, and sizes that the weights do not have."""
    config = student.config
    unknown = config.keys() - config_keys(family)
    if unknown:
        raise ValueError(f"its config has {min(unknown)!r}, which no {family.name} has")
    if config.get("model_type") not in family.model_types:
        raise ValueError(f"its config is of the type {config.get('model_type')!r}")
    for key, value in config.items():
        if isinstance(value, int) and abs(value) > _LARGEST_SIZE:
            raise ValueError(f"its config says {key}={value}, more than {_LARGEST_SIZE}")
        if isinstance(value, int) and value < (-1 if key.endswith("_token_id") else 0):
            raise ValueError(f"its config says {key}={value}, which is negative")
    for key, prefix in (
        (family.encoder_layers_key, family.encoder_layer_prefix),
        (family.decoder_layers_key, family.decoder_layer_prefix),
    ):
        names = (name.removeprefix(prefix) for name in student.uses if name.startswith(prefix))
        layers = len({name.partition(".")[0] for name in names})
        if config.get(key) != layers:
            raise ValueError(f"its config says {key}={config.get(key)!r}, and it has {layers}")


def _empty_model(student: PackedStudent, family: ModelFamily) -> PreTrainedModel:
    try:
        with torch.device("meta"):
            return family.model_class(config_of(family, student.config))
    except Exception as error:  # transformers and torch raise many types for a wrong config
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ValueError(f"its config describes no model ({lines[0]})") from error


def _check_uses(student: PackedStudent, family: ModelFamily, model: PreTrainedModel) -> None:
    """Every weight is there in its shape, and nothing else is."""
    asked = {name: t.shape for name, t in model.state_dict().items() if not family.computes(name)}
    _check_names("weights", student.uses.keys(), asked.keys())
    _check_names(
        "stored weights", {*student.matrices, *student.tensors}, set(student.uses.values())
    )
    if student.matrices.keys() & student.tensors.keys():
        raise ValueError("it has a weight both as codes and as floats")
    for key, shape in asked.items():
        name = student.uses[key]
        matrix = student.matrices.get(name)
        found = (matrix.rows, matrix.columns) if matrix else tuple(student.tensors[name].shape)
        if found != tuple(shape):
            raise ValueError(f"{key} has the shape {found}, its config asks for {tuple(shape)}")
        if student.uses.get(name) != name:
            raise ValueError(f"{name} is a weight that does not stand for itself")
    positions = getattr(model.config, "max_position_embeddings", 0)
    if positions * getattr(model.config, family.layout.width_key) > _LARGEST_TABLE:
        raise ValueError(f"its {positions} positions are more than a model computes")


def _check_names(what: str, found: Any, asked: Any) -> None:
    if found != asked:
        name = min(found ^ asked)
        raise ValueError(f"its {what} {'lack' if name in asked else 'have'} {name!r}")


def _check_matrix(name: str, matrix: PackedMatrix) -> None:
    """Bounds of every number, shapes and types of every part."""
    fields, bits, columns = matrix.fields, matrix.bits, matrix.columns
    if bits not in WIDTHS or not -255 <= matrix.lowest <= 255:
        raise ValueError(f"{name} has {bits} bits and the lowest code {matrix.lowest}")
    if fields.dtype != torch.uint8 or fields.dim() != 2 or columns < 1 or fields.shape[0] < 1:
        raise ValueError(f"{name} has no matrix of codes")
    if fields.shape[1] != -(-columns * bits // 8):
        raise ValueError(f"{name} has {fields.shape[1]} bytes a row for {columns} columns")
    used = columns * bits % 8
    if used and bool((fields[:, -1] >> used).any()):
        raise ValueError(f"{name} has codes behind its last column")
    size = matrix.group_size
    if size is not None and not 0 < size < columns:
        raise ValueError(f"{name} has groups of {size}")
    shape = (matrix.rows, 1 if size is None else -(-columns // size))
    for part in (matrix.scale, matrix.zero_point, matrix.zero_code):
        if part is not None:
            _check_floats(f"the scales of {name}", part)
            if tuple(part.shape) not in (shape, (1, 1) if size is None else shape):
                raise ValueError(f"{name} has scales of the shape {tuple(part.shape)}")
    if matrix.divides and bool((matrix.scale == 0).any()):
        raise ValueError(f"{name} divides by 0")
    if not _is_finite(matrix):
        raise ValueError(f"{name} has values beyond float32")


def _is_finite(matrix: PackedMatrix) -> bool:
    """Whether the values of the lowest and of the highest code, and so of all others, are finite.

    Of those that a field can hold, whichever are there: so no matrix has to be unpacked.
    """
    scale = matrix.scale.float()
    ends = torch.tensor([[matrix.lowest], [matrix.lowest + 2**matrix.bits - 1]]).float()
    for end in ends:
        distance = end if matrix.zero_point is None else end - matrix.zero_point.float()
        value = distance / scale if matrix.divides else distance * scale
        if not bool(torch.isfinite(value).all()):
            return False
    return True


def _check_floats(name: str, tensor: Tensor) -> None:
    if tensor.dtype not in _HALF_OR_FLOAT:
        raise ValueError(f"{name} is of the type {str(tensor.dtype).removeprefix('torch.')}")
    if not bool(torch.isfinite(tensor).all()):
        raise ValueError(f"{name} has infinite numbers or none at all")


def _check_layers(student: PackedStudent, family: ModelFamily, model: PreTrainedModel) -> None:
    """Quantizers and packed matrices belong to layers that can have them."""
    modules = dict(model.named_modules(remove_duplicate=False))
    for key, name in student.uses.items():
        owner = key.rpartition(".")[0]
        if name in student.matrices and not _can_be_packed(modules.get(owner), key, family):
            raise ValueError(f"{key} is packed, but belongs to no linear layer or embedding")
        is_packed_linear = isinstance(modules.get(owner), nn.Linear) and name in student.matrices
        if is_packed_linear and owner not in student.inputs:
            raise ValueError(f"{owner} is packed, but its input is not described")
    for name, described in student.inputs.items():
        if not isinstance(modules.get(name), nn.Linear):
            raise ValueError(f"it describes the input of {name!r}, which is no linear layer")
        _check_quantizer(f"the input of {name}", described)
    for name, operands in student.operands.items():
        if type(modules.get(name)) not in family.attention_types or set(operands) != OPERANDS:
            raise ValueError(f"it describes operands of {name!r} that no attention has")
        for operand, described in operands.items():
            _check_quantizer(f"the {operand} of {name}", described)


def _can_be_packed(module: nn.Module | None, key: str, family: ModelFamily) -> bool:
    """Whether a weight is a matrix of a layer (T5's relative bias is read otherwise)."""
    if not isinstance(module, (nn.Linear, nn.Embedding)) or not key.endswith(".weight"):
        return False
    return family.layout.axes_of(key)[-1] != HEADS


def _check_quantizer(where: str, described: QuantizerDescription | None) -> None:
    if described is None:
        return
    for name, tensor in described.state.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"{where}: {name} is not finite")
    numbers = [value for value in described.arguments.values() if isinstance(value, float)]
    if type(described.arguments.get("bits", 8)) is not int or not all(map(math.isfinite, numbers)):
        raise ValueError(f"{where}: its quantizer cannot have {dict(described.arguments)}")
    try:
        quantizer = described.build()
    except Exception as error:  # hostile arguments raise what they like
        raise ValueError(f"{where}: {str(error).rstrip('.') or type(error).__name__}") from error
    if quantizer.weights_only:
        raise ValueError(f"{where}: {described.kind} is no quantizer of activations here")


def _check_tokens(generation: Mapping[str, Any], vocabulary: int) -> None:
    """Tokens that a decoder may be fed with or must not produce are tokens of the vocabulary."""
    for name, value in generation.items():
        depth = _TOKEN_LISTS.get(name)
        if name.endswith("_token_id"):
            depth = int(isinstance(value, list))
        if depth is not None and value is not None and not _are_tokens(value, depth, vocabulary):
            raise ValueError(f"it generates with {name}={value!r}, no token of its own")


def _are_tokens(value: Any, depth: int, vocabulary: int) -> bool:
    """Whether a value is a token (depth 0), a list of tokens (1), or a list of such lists (2)."""
    if depth == 0:
        return type(value) is int and 0 <= value < vocabulary
    return isinstance(value, list) and all(
        _are_tokens(item, depth - 1, vocabulary) for item in cast("list[Any]", value)
    )
