"""What an ONNX export asks of a family, and what the families have in common."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from dq_lightning.artifacts.onnx_attention import Heads, KeyValue, count, distances, length_of
from dq_lightning.artifacts.onnx_builder import OnnxGraph

_ACTIVATIONS: dict[str, tuple[str, dict[str, str]]] = {
    "gelu": ("Gelu", {}),
    "gelu_new": ("Gelu", {"approximate": "tanh"}),
    "relu": ("Relu", {}),
    "tanh": ("Tanh", {}),
}


@dataclass(frozen=True)
class DecoderInputs:
    """Names of values: ids (batch, length), the mask of the source (batch, source), and by layer
    the keys and values of the tokens before and of the source."""

    ids: str
    mask: str
    past: Sequence[KeyValue]
    cross: Sequence[KeyValue]


class OnnxFamily(Protocol):
    """Nodes of one family of models."""

    heads: Heads
    num_layers: int

    def encode(self, graph: OnnxGraph, ids: str, mask: str) -> list[KeyValue]:
        """Keys and values of the source for each decoder layer."""
        ...

    def decode(self, graph: OnnxGraph, inputs: DecoderInputs) -> tuple[str, list[KeyValue]]:
        """Logits (batch, length, vocabulary), and keys and values of all tokens by layer."""
        ...


def following(graph: OnnxGraph, inputs: DecoderInputs) -> tuple[str, str]:
    """Positions of the decoder's tokens, and (tokens, keys): how far each key is ahead of each."""
    before = length_of(graph, inputs.past[0][0], 2)
    end = graph.op("Add", before, length_of(graph, inputs.ids, 1))
    places = count(graph, before, end)
    return places, distances(graph, places, count(graph, graph.constant(0), end))


def activate(graph: OnnxGraph, function: str, x: str) -> str:
    """An activation function by its name in transformers; ValueError for an unknown one."""
    if function in ("silu", "swish"):
        return graph.op("Mul", x, graph.op("Sigmoid", x))
    if function not in _ACTIVATIONS:
        known = ", ".join([*_ACTIVATIONS, "silu"])
        raise ValueError(f"The activation {function!r} cannot be exported; known: {known}.")
    kind, attributes = _ACTIVATIONS[function]
    return graph.op(kind, x, **attributes)
