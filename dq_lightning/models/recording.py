"""One forward pass that records what losses read: flags for most of it, hooks for the rest."""

from collections.abc import Collection, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import Seq2SeqLMOutput

from dq_lightning.models.family import ModelFamily, family_of

ATTENTION_STATES = ("query_states", "key_states", "value_states")
"""What the projections of self-attention give, in the order of `ModelFamily.query_key_value`."""


@dataclass
class RecordedOutput(Seq2SeqLMOutput):
    """A model's output and its self-attention's inputs, (batch, length, width) for each layer.

    They are what the linear projections return: before the split into heads, the scaling of the
    queries and any quantizer of the attention's operands.
    """

    encoder_query_states: tuple[Tensor, ...] | None = None
    encoder_key_states: tuple[Tensor, ...] | None = None
    encoder_value_states: tuple[Tensor, ...] | None = None
    decoder_query_states: tuple[Tensor, ...] | None = None
    decoder_key_states: tuple[Tensor, ...] | None = None
    decoder_value_states: tuple[Tensor, ...] | None = None


def record(
    model: PreTrainedModel, inputs: Mapping[str, Tensor], requires: Collection[str]
) -> RecordedOutput:
    """The outputs of `model` with what `requires` names and nothing else.

    requires: any of "hidden_states", "attentions", "query_states", "key_states", "value_states".
    The last three work with every attention implementation; no hook outlives the call.
    """
    with _hooked_projections(model, requires) as states:
        outputs = model(
            **inputs,
            output_hidden_states="hidden_states" in requires,
            output_attentions="attentions" in requires,
            use_cache=False,
        )
    recorded: dict[str, Any] = {name: tuple(layers) for name, layers in states.items()}
    return RecordedOutput(**outputs, **recorded)


def attention_width(model: PreTrainedModel) -> int:
    """The features of the queries, keys and values of the model's self-attention."""
    stacks = _projections(model, family_of(model.config))
    width = stacks["encoder_query_states"][0].out_features
    assert isinstance(width, int)
    return width


@contextmanager
def _hooked_projections(
    model: PreTrainedModel, requires: Collection[str]
) -> Generator[dict[str, list[Tensor]], None, None]:
    """Lists that fill up, layer after layer, while the model runs inside the block."""
    kinds = tuple(kind for kind in ATTENTION_STATES if kind in requires)
    found = _projections(model, family_of(model.config)) if kinds else {}
    chosen = {name: layers for name, layers in found.items() if name.endswith(kinds)}
    states: dict[str, list[Tensor]] = {name: [] for name in chosen}
    handles = [
        module.register_forward_hook(partial(_keep, states[name]))
        for name, layers in chosen.items()
        for module in layers
    ]
    try:
        yield states
    finally:
        for handle in handles:
            handle.remove()


def _keep(states: list[Tensor], _module: nn.Module, _inputs: Any, output: Tensor) -> None:
    states.append(output)


def _projections(model: PreTrainedModel, family: ModelFamily) -> dict[str, list[nn.Module]]:
    """Attribute of `RecordedOutput` -> the linear module of every layer, in their order."""
    prefixes = family.encoder_layer_prefix, family.decoder_layer_prefix
    counts = family.num_layers(model.config)
    return {
        f"{stack}_{kind}": [
            model.get_submodule(f"{prefix}{layer}.{family.self_attention}.{projection}")
            for layer in range(count)
        ]
        for stack, prefix, count in zip(("encoder", "decoder"), prefixes, counts, strict=True)
        for kind, projection in zip(ATTENTION_STATES, family.query_key_value, strict=True)
    }
