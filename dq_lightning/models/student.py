"""Students: a shallower or narrower copy of the teacher, or a model from scratch."""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from dq_lightning.models.family import ModelFamily
from dq_lightning.models.layer_mapping import LayerMapping
from dq_lightning.models.narrowing import (
    AS_THE_TEACHER,
    Narrowing,
    narrow_config,
    narrow_weights,
)


def student_from_teacher(
    teacher: PreTrainedModel,
    family: ModelFamily,
    mapping: LayerMapping,
    dropout: float | None = None,
    narrowing: Narrowing = AS_THE_TEACHER,
) -> PreTrainedModel:
    """A model with `mapping`'s layers, each a copy of its teacher layer; the rest is copied alike.

    narrowing: smaller sizes, to which the copies are cut by the rule of `narrow_weights`.

    dropout: probability of every dropout of the student; None keeps the teacher's. Whole layers
    are never dropped.

    Built from a copied config and renamed weights, never by slicing module lists: a T5 student
    that loses block 0 would silently lose its relative position bias.
    """
    config = narrow_config(teacher.config, family, narrowing)
    setattr(config, family.encoder_layers_key, len(mapping.encoder))
    setattr(config, family.decoder_layers_key, len(mapping.decoder))
    for key in family.dropout_keys if dropout is not None else ():
        setattr(config, key, dropout)
    for key in family.layer_dropout_keys:
        setattr(config, key, 0.0)  # a skipped layer would leave no hidden state to compare
    student = type(teacher)(config)
    student.to(dtype=teacher.dtype, device=teacher.device)  # pyright: ignore[reportCallIssue]
    _tie_alike(student, teacher)
    computed = {name: w for name, w in student.state_dict().items() if family.computes(name)}
    mapped = _mapped_weights(teacher.state_dict(), family, mapping)
    student.load_state_dict(computed | narrow_weights(mapped, family, teacher.config, config))
    student.generation_config = copy.deepcopy(teacher.generation_config)
    return student


def _tie_alike(student: PreTrainedModel, teacher: PreTrainedModel) -> None:
    """Share Parameters where the teacher does, and only there.

    The config does not decide: T5's says "tied" whatever the checkpoint holds (flan-T5 is untied).
    """
    chosen: dict[int, nn.Parameter] = {}
    taken: set[int] = set()
    for name, own in list(student.named_parameters(remove_duplicate=False)):
        theirs = id(teacher.get_parameter(name))
        if theirs not in chosen:
            chosen[theirs] = nn.Parameter(torch.empty_like(own)) if id(own) in taken else own
            taken.add(id(own))
        owner, _, attribute = name.rpartition(".")
        setattr(student.get_submodule(owner), attribute, chosen[theirs])


def _mapped_weights(
    weights: dict[str, Tensor], family: ModelFamily, mapping: LayerMapping
) -> dict[str, Tensor]:
    mapped = dict(weights)
    for prefix, layers in (
        (family.encoder_layer_prefix, mapping.encoder),
        (family.decoder_layer_prefix, mapping.decoder),
    ):
        per_layer: dict[int, dict[str, Tensor]] = {}
        for key in [key for key in mapped if key.startswith(prefix)]:
            number, suffix = key.removeprefix(prefix).split(".", 1)
            per_layer.setdefault(int(number), {})[suffix] = mapped.pop(key)
        shared = {s: per_layer[0][s] for s in family.first_layer_only if s in per_layer[0]}
        for position, layer in enumerate(layers):
            own = {s: v for s, v in per_layer[layer].items() if s not in family.first_layer_only}
            for suffix, value in (own | (shared if position == 0 else {})).items():
                mapped[f"{prefix}{position}.{suffix}"] = value
    return mapped


def student_from_scratch(
    family: ModelFamily,
    tokenizer: PreTrainedTokenizerBase,
    encoder_layers: int,
    decoder_layers: int,
    config: dict[str, Any],
) -> PreTrainedModel:
    """A randomly initialised model, as a teacher is trained from (seed torch before).

    config: further keyword arguments of the family's config class (d_model, dropout, ...).
    """
    settings: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        family.encoder_layers_key: encoder_layers,
        family.decoder_layers_key: decoder_layers,
        **config,
    }
    return family.model_class(family.model_class.config_class(**settings))  # pyright: ignore
