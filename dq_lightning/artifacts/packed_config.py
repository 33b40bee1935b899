"""What a packed file keeps of a model's configs: its shape and its generation settings."""

import json
from collections.abc import Mapping
from typing import Any

from transformers import GenerationConfig, PreTrainedConfig

from dq_lightning.models.family import ModelFamily

_OF_THE_CHECKPOINT = frozenset(
    "_name_or_path architectures dtype id2label label2id output_attentions output_hidden_states "
    "problem_type return_dict transformers_version".split()
)
"""Says nothing about the model, or names a path of the machine that trained it."""


def stored_config(family: ModelFamily, config: PreTrainedConfig) -> dict[str, Any]:
    """The keys that a config of this family has, as plain JSON; a checkpoint's further keys go."""
    kept = config_keys(family)
    content: dict[str, Any] = json.loads(config.to_json_string(use_diff=False))
    return {key: value for key, value in content.items() if key in kept}


def config_keys(family: ModelFamily) -> set[str]:
    """Every key that a stored config may have."""
    return _default(family).to_dict().keys() - _OF_THE_CHECKPOINT


def config_of(family: ModelFamily, stored: Mapping[str, Any]) -> PreTrainedConfig:
    """The transformers config; a key that is not there has its class's default.

    T5's class says tied and scaled whatever it is given, so every key is set once more.
    """
    config = type(_default(family))(**stored)
    for key in stored.keys() - {"model_type"}:
        setattr(config, key, stored[key])
    return config


def stored_generation(config: GenerationConfig) -> dict[str, Any]:
    """The settings that are set, as plain JSON."""
    content: dict[str, Any] = json.loads(config.to_json_string(use_diff=False))
    return {
        key: value
        for key, value in content.items()
        if value is not None and not key.startswith("_") and key not in _OF_THE_CHECKPOINT
    }


def _default(family: ModelFamily) -> PreTrainedConfig:
    kind = family.model_class.config_class
    assert kind is not None
    return kind()
