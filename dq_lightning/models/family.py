"""What the framework must know about a family of sequence-to-sequence transformers."""

import importlib
import pkgutil
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import nn
from transformers import PreTrainedModel

from dq_lightning.models.layout import Layout


@dataclass(frozen=True)
class ModelFamily:
    """One family of encoder-decoder models, described by names and types alone.

    attention_types, token_embedding_types: matched by exact type, never by isinstance.
    keep_embeddings: fnmatch patterns of embeddings that stay in full precision (positions).
    feed_forward_outputs: fnmatch patterns of each block's second feed-forward matrix.
    head: name of the output projection.
    encoder_layers_key, decoder_layers_key: config attributes that count the layers.
    encoder_layer_prefix, decoder_layer_prefix: state-dict prefixes before the layer number.
    dropout_keys: config attributes that hold dropout probabilities.
    layout: what its config keys and the axes of its weights stand for.
    first_layer_only: state-dict suffixes that exist in layer 0 alone and serve every layer
        (T5's relative position bias): they stay in layer 0 whichever layer it is copied from.
    layer_dropout_keys: config attributes that hold the probability of skipping a whole layer.
    computed_weights: fnmatch patterns of state-dict keys that a checkpoint may lack, because the
        model computes them when it is built (sinusoidal positions).
    self_attention: name of the self-attention module inside a layer of either stack.
    query_key_value: names of its three linear projections.
    """

    name: str
    model_types: tuple[str, ...]
    model_class: type[PreTrainedModel]
    attention_types: tuple[type[nn.Module], ...]
    token_embedding_types: tuple[type[nn.Embedding], ...]
    keep_embeddings: tuple[str, ...]
    feed_forward_outputs: tuple[str, ...]
    head: str
    encoder_layers_key: str
    decoder_layers_key: str
    encoder_layer_prefix: str
    decoder_layer_prefix: str
    dropout_keys: tuple[str, ...]
    layout: Layout
    first_layer_only: tuple[str, ...] = ()
    layer_dropout_keys: tuple[str, ...] = ()
    computed_weights: tuple[str, ...] = ()
    self_attention: str = "self_attn"
    query_key_value: tuple[str, str, str] = ("q_proj", "k_proj", "v_proj")

    def num_layers(self, config: object) -> tuple[int, int]:
        """(encoder layers, decoder layers) of a model config."""
        return getattr(config, self.encoder_layers_key), getattr(config, self.decoder_layers_key)

    def computes(self, name: str) -> bool:
        """Whether the model computes a weight when it is built."""
        return any(fnmatchcase(name, pattern) for pattern in self.computed_weights)


def known_families() -> list[ModelFamily]:
    """Every FAMILY of this package's modules: a new family is one new file."""
    package = importlib.import_module("dq_lightning.models")
    modules = (
        importlib.import_module(f"{package.__name__}.{info.name}")
        for info in pkgutil.iter_modules(package.__path__)
    )
    return [module.FAMILY for module in modules if hasattr(module, "FAMILY")]


def family_of(config: object) -> ModelFamily:
    """The family that serves a model config, or a ValueError that lists the known ones."""
    kind = getattr(config, "model_type", None)
    families = known_families()
    for family in families:
        if kind in family.model_types:
            return family
    known = sorted(name for family in families for name in family.model_types)
    raise ValueError(
        f"teacher.path holds a model of type {kind!r}; this project distils {', '.join(known)}."
    )


def family_named(name: str) -> ModelFamily:
    """The family of that name, or a ValueError that lists the known ones."""
    families = {family.name: family for family in known_families()}
    if name not in families:
        raise ValueError(f"student.family={name} is unknown; write one of {sorted(families)}.")
    return families[name]
