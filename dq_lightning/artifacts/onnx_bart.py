"""BART, mBART, Pegasus, Marian and M2M-100 as ONNX nodes: one layout, four differences."""

import math
from typing import Any

from torch import Tensor

from dq_lightning.artifacts.dequantized import dequantized_model
from dq_lightning.artifacts.onnx_attention import (
    Heads,
    KeyValue,
    attend,
    causal_bias,
    count,
    joined,
    length_of,
    padding_bias,
    split,
)
from dq_lightning.artifacts.onnx_builder import OnnxGraph
from dq_lightning.artifacts.onnx_family import DecoderInputs, activate, following
from dq_lightning.artifacts.packed_student import PackedStudent

_EPSILON = 1e-5
"""Of torch's LayerNorm, which none of these families changes."""


class BartOnnx:
    """They differ in where norms stand, in norms of the embedding, in positions and in scale.

    Norms before each block and one at the end (mBART, Pegasus, M2M-100), or after each (BART,
    Marian). Positions are learned from the third row on (BART, mBART), or computed: from the first
    (Marian, Pegasus), or behind the padding token's (M2M-100).
    """

    def __init__(self, student: PackedStudent) -> None:
        config = student.config
        self.config, number = config, config["decoder_attention_heads"]
        if config["encoder_attention_heads"] != number:
            raise ValueError("An encoder with other heads than the decoder's cannot be exported.")
        size = config["d_model"] // number
        self.heads = Heads(number, size, size**-0.5)
        self.num_layers = config["decoder_layers"]
        self._model = dequantized_model(student)
        self._before = "model.encoder.layer_norm.weight" in student.uses

    def encode(self, graph: OnnxGraph, ids: str, mask: str) -> list[KeyValue]:
        """The encoder, and the keys and values that each decoder layer takes from it."""
        stack, bias = "model.encoder", padding_bias(graph, mask)
        places = count(graph, graph.constant(0), length_of(graph, ids, 1))
        x = self._embed(graph, stack, ids, places)
        for number in range(self.config["encoder_layers"]):
            layer = f"{stack}.layers.{number}"
            y = self._normed_before(graph, f"{layer}.self_attn_layer_norm", x)
            key_value = self._key_value(graph, f"{layer}.self_attn", y)
            y = self._attention(graph, f"{layer}.self_attn", y, key_value, bias)
            x = self._normed_after(graph, f"{layer}.self_attn_layer_norm", x, y)
            x = self._feed_forward(graph, layer, x)
        x = self._last_norm(graph, stack, x)
        names = (f"model.decoder.layers.{n}.encoder_attn" for n in range(self.num_layers))
        return [self._key_value(graph, name, x) for name in names]

    def decode(self, graph: OnnxGraph, inputs: DecoderInputs) -> tuple[str, list[KeyValue]]:
        """The decoder on tokens that follow those of `past`."""
        stack, present = "model.decoder", list[KeyValue]()
        places, distance = following(graph, inputs)
        causal, padding = causal_bias(graph, distance), padding_bias(graph, inputs.mask)
        x = self._embed(graph, stack, inputs.ids, places)
        for number, (past, cross) in enumerate(zip(inputs.past, inputs.cross, strict=True)):
            layer = f"{stack}.layers.{number}"
            y = self._normed_before(graph, f"{layer}.self_attn_layer_norm", x)
            new = self._key_value(graph, f"{layer}.self_attn", y)
            present.append(joined(graph, past, new))
            y = self._attention(graph, f"{layer}.self_attn", y, present[-1], causal)
            x = self._normed_after(graph, f"{layer}.self_attn_layer_norm", x, y)
            y = self._normed_before(graph, f"{layer}.encoder_attn_layer_norm", x)
            y = self._attention(graph, f"{layer}.encoder_attn", y, cross, padding)
            x = self._normed_after(graph, f"{layer}.encoder_attn_layer_norm", x, y)
            x = self._feed_forward(graph, layer, x)
        logits = graph.linear(self._last_norm(graph, stack, x), "lm_head")
        if graph.has("final_logits_bias"):
            logits = graph.op("Add", logits, graph.weight("final_logits_bias"))
        return logits, present

    def _embed(self, graph: OnnxGraph, stack: str, ids: str, places: str) -> str:
        x = graph.lookup(ids, f"{stack}.embed_tokens.weight")
        if self.config["scale_embedding"]:
            x = graph.op("Mul", x, graph.number(math.sqrt(self.config["d_model"])))
        x = graph.op("Add", x, self._positions(graph, stack, places))
        norm = f"{stack}.layernorm_embedding"
        return self._norm(graph, norm, x) if graph.has(f"{norm}.weight") else x

    def _positions(self, graph: OnnxGraph, stack: str, places: str) -> str:
        key = f"{stack}.embed_positions.weight"
        module: Any = self._model.get_submodule(f"{stack}.embed_positions")
        computed: Tensor | None = getattr(module, "weights", None)
        offset = 2 if graph.has(key) else 0 if computed is None else module.padding_idx + 1
        places = graph.op("Add", places, graph.constant(offset))
        places = graph.op("Unsqueeze", places, graph.constant([0]))
        if graph.has(key):
            return graph.lookup(places, key)
        table = module.weight if computed is None else computed
        return graph.op("Gather", graph.stored(key, table.numpy()), places)

    def _key_value(self, graph: OnnxGraph, attention: str, x: str) -> KeyValue:
        key, value = (
            split(graph, graph.linear(x, f"{attention}.{name}_proj"), self.heads) for name in "kv"
        )
        return key, value

    def _attention(
        self, graph: OnnxGraph, attention: str, x: str, key_value: KeyValue, bias: str
    ) -> str:
        query = graph.linear(x, f"{attention}.q_proj")
        y = attend(graph, query, *key_value, bias, self.heads)
        return graph.linear(y, f"{attention}.out_proj")

    def _feed_forward(self, graph: OnnxGraph, layer: str, x: str) -> str:
        norm = f"{layer}.final_layer_norm"
        y = graph.linear(self._normed_before(graph, norm, x), f"{layer}.fc1")
        y = activate(graph, self.config["activation_function"], y)
        return self._normed_after(graph, norm, x, graph.linear(y, f"{layer}.fc2"))

    def _normed_before(self, graph: OnnxGraph, norm: str, x: str) -> str:
        return self._norm(graph, norm, x) if self._before else x

    def _normed_after(self, graph: OnnxGraph, norm: str, x: str, y: str) -> str:
        total = graph.op("Add", x, y)
        return total if self._before else self._norm(graph, norm, total)

    def _last_norm(self, graph: OnnxGraph, stack: str, x: str) -> str:
        return self._norm(graph, f"{stack}.layer_norm", x) if self._before else x

    def _norm(self, graph: OnnxGraph, norm: str, x: str) -> str:
        parts = (graph.weight(f"{norm}.{part}") for part in ("weight", "bias"))
        return graph.op("LayerNormalization", x, *parts, axis=-1, epsilon=_EPSILON)
