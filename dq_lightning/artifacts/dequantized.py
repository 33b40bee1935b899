"""A packed student as a plain transformers model: its quantized weights' values, in float32."""

import copy

from torch import nn
from transformers import GenerationConfig, PreTrainedModel

from dq_lightning.artifacts.packed_student import PackedStudent
from dq_lightning.models.family import family_named

# T5's config class sets both to True whatever the dict says (flan-T5: neither).
_FORCED = ("tie_word_embeddings", "scale_decoder_outputs")


def dequantized_model(student: PackedStudent) -> PreTrainedModel:
    """The student with the same weights bit for bit and with activations in float32, in eval mode.

    Keys that share a matrix share a Parameter, and only they: an 8-bit head of a tied model has
    values of its own.
    """
    family = family_named(student.family)
    config = family.model_class.config_class.from_dict(copy.deepcopy(dict(student.config)))  # pyright: ignore
    for name in _FORCED:
        if name in student.config:
            setattr(config, name, student.config[name])
    model = family.model_class(config)
    parameters: dict[str, nn.Parameter] = {}
    for key, name in student.uses.items():
        owner, _, attribute = key.rpartition(".")
        module = model.get_submodule(owner)
        if isinstance(getattr(module, attribute), nn.Parameter):
            if name not in parameters:
                parameters[name] = nn.Parameter(student.weight(key), requires_grad=False)
            setattr(module, attribute, parameters[name])
        else:
            module.register_buffer(attribute, student.weight(key))
    model.generation_config = GenerationConfig.from_dict(dict(student.generation))
    return model.eval().requires_grad_(False)


def resident_bytes(model: PreTrainedModel) -> int:
    """Bytes of a model's weights in memory, shared ones once."""
    parameters = {id(p): p for p in model.parameters()}.values()
    return sum(parameter.numel() * parameter.element_size() for parameter in parameters)
