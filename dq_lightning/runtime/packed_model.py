"""The transformers model of a packed student, its matrices packed in memory."""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from dq_lightning.artifacts.packed_student import PackedStudent
from dq_lightning.models.family import family_named
from dq_lightning.quantization.attention import (
    attach_attention_quantizers,
    use_fake_quantized_attention,
)
from dq_lightning.quantization.description import QuantizerDescription
from dq_lightning.quantization.fake_quantizer import FakeQuantizer
from dq_lightning.quantization.modules import FakeQuantizedLinear
from dq_lightning.runtime.empty_model import computed_weights, empty_model
from dq_lightning.runtime.packed_modules import PackedWeight, packed_embedding, packed_linear


def packed_model(student: PackedStudent, device: str = "cpu") -> PreTrainedModel:
    """A model whose logits are those of the fake-quantized student in eval mode, bit for bit.

    Only its float tensors and one unpacked matrix at a time are in memory in float32.
    """
    model = empty_model(family_named(student.family), student.config)
    _give_tensors(model, student, device)
    _give_matrices(model, student, device)
    for name, operands in student.operands.items():
        factories = {operand: _factory(described) for operand, described in operands.items()}
        attach_attention_quantizers(model.get_submodule(name), factories)
    if student.operands:
        use_fake_quantized_attention(model)
    return model.eval().to(torch.device(device))  # pyright: ignore[reportArgumentType]


def _give_tensors(model: PreTrainedModel, student: PackedStudent, device: str) -> None:
    """Put float tensors into the model, one Parameter for all owners of a tied one."""
    parameters: dict[str, nn.Parameter] = {}
    for key, name in student.uses.items():
        if name in student.tensors:
            if name not in parameters:
                values = student.tensors[name].float().to(device)
                parameters[name] = nn.Parameter(values, requires_grad=False)
            _set_tensor(model, key, parameters[name])
    for key, values in computed_weights(model).items():
        _set_tensor(model, key, nn.Parameter(values.to(device), requires_grad=False))


def _set_tensor(model: PreTrainedModel, key: str, value: nn.Parameter) -> None:
    owner_name, _, attribute = key.rpartition(".")
    owner = model.get_submodule(owner_name)
    buffers = dict(owner.named_buffers(recurse=False))
    setattr(owner, attribute, value.data if attribute in buffers else value)


def _give_matrices(model: PreTrainedModel, student: PackedStudent, device: str) -> None:
    """Replace the layers whose weight is packed or whose input is quantized."""
    weights = {n: PackedWeight(matrix).to(device) for n, matrix in student.matrices.items()}
    replaced: dict[int, nn.Module] = {}  # a module with several names stays one module
    for name, module in list(model.named_modules(remove_duplicate=False)):
        if isinstance(module, (nn.Linear, nn.Embedding)):
            weight = weights.get(student.uses.get(f"{name}.weight", ""))
            if id(module) not in replaced:
                replaced[id(module)] = _layer(module, weight, student.inputs.get(name))
            model.set_submodule(name, replaced[id(module)])


def _layer(
    module: nn.Linear | nn.Embedding,
    weight: PackedWeight | None,
    described: QuantizerDescription | None,
) -> nn.Module:
    if isinstance(module, nn.Embedding):
        return module if weight is None else packed_embedding(module, weight)
    inputs = None if described is None else _built(described)
    if weight is not None:
        return packed_linear(module, weight, inputs)
    return module if inputs is None else FakeQuantizedLinear.from_linear(module, None, inputs)


def _factory(described: QuantizerDescription | None) -> Any:
    return None if described is None else partial(_built, described)


def _built(described: QuantizerDescription) -> FakeQuantizer:
    return described.build().eval().requires_grad_(False)


def resident_bytes(model: nn.Module) -> int:
    """Bytes of all distinct tensors of a model."""
    tensors: list[Tensor] = [*model.parameters(), *model.buffers()]
    return sum(t.numel() * t.element_size() for t in {t.data_ptr(): t for t in tensors}.values())


def device_named(device: str) -> torch.device:
    """The device, or a ValueError where this machine does not have it."""
    try:
        found = torch.device(device)
        torch.empty(1, device=found)
    except Exception as error:  # torch raises several types here, all with pages of text
        raise ValueError(f"device={device} cannot be used here; write device=cpu.") from error
    return found
