"""T5 and mT5 as ONNX nodes."""

from typing import Any

import torch
from torch import Tensor

from dq_lightning.artifacts.dequantized import dequantized_model
from dq_lightning.artifacts.onnx_attention import (
    Heads,
    KeyValue,
    attend,
    causal_bias,
    count,
    distances,
    joined,
    length_of,
    padding_bias,
    split,
)
from dq_lightning.artifacts.onnx_builder import OnnxGraph
from dq_lightning.artifacts.onnx_family import DecoderInputs, activate, following
from dq_lightning.artifacts.packed_student import PackedStudent


class T5Onnx:
    """RMS norms before each block, relative positions in every self-attention, no biases."""

    def __init__(self, student: PackedStudent) -> None:
        self.config = student.config
        self.heads = Heads(self.config["num_heads"], self.config["d_kv"])
        self.num_layers = self.config["num_decoder_layers"]
        self._model = dequantized_model(student)

    def encode(self, graph: OnnxGraph, ids: str, mask: str) -> list[KeyValue]:
        """The encoder, and the keys and values that each decoder layer takes from it."""
        places = count(graph, graph.constant(0), length_of(graph, ids, 1))
        relative = self._relative(graph, "encoder", distances(graph, places, places))
        bias = graph.op("Add", relative, padding_bias(graph, mask))
        x = graph.lookup(ids, "encoder.embed_tokens.weight")
        for number in range(self.config["num_layers"]):
            block = f"encoder.block.{number}.layer"
            y = self._norm(graph, f"{block}.0.layer_norm", x)
            attention = f"{block}.0.SelfAttention"
            y = self._attention(graph, attention, y, self._key_value(graph, attention, y), bias)
            x = graph.op("Add", x, y)
            x = self._feed_forward(graph, f"{block}.1", x)
        x = self._norm(graph, "encoder.final_layer_norm", x)
        names = (f"decoder.block.{n}.layer.1.EncDecAttention" for n in range(self.num_layers))
        return [self._key_value(graph, name, x) for name in names]

    def decode(self, graph: OnnxGraph, inputs: DecoderInputs) -> tuple[str, list[KeyValue]]:
        """The decoder on tokens that follow those of `past`."""
        present = list[KeyValue]()
        _, distance = following(graph, inputs)
        relative = self._relative(graph, "decoder", distance)
        bias = graph.op("Add", relative, causal_bias(graph, distance))
        padding = padding_bias(graph, inputs.mask)
        x = graph.lookup(inputs.ids, "decoder.embed_tokens.weight")
        for number, (past, cross) in enumerate(zip(inputs.past, inputs.cross, strict=True)):
            block = f"decoder.block.{number}.layer"
            y = self._norm(graph, f"{block}.0.layer_norm", x)
            attention = f"{block}.0.SelfAttention"
            present.append(joined(graph, past, self._key_value(graph, attention, y)))
            y = self._attention(graph, attention, y, present[-1], bias)
            x = graph.op("Add", x, y)
            y = self._norm(graph, f"{block}.1.layer_norm", x)
            y = self._attention(graph, f"{block}.1.EncDecAttention", y, cross, padding)
            x = graph.op("Add", x, y)
            x = self._feed_forward(graph, f"{block}.2", x)
        x = self._norm(graph, "decoder.final_layer_norm", x)
        if getattr(self._model.config, "scale_decoder_outputs", False):  # mT5's has no such key
            x = graph.op("Mul", x, graph.number(self.config["d_model"] ** -0.5))
        return graph.linear(x, "lm_head"), present

    def _relative(self, graph: OnnxGraph, stack: str, distance: str) -> str:
        """(1, heads, queries, keys): the bias of each distance, alike from the farthest on."""
        farthest = self.config["relative_attention_max_distance"]
        attention = f"{stack}.block.0.layer.0.SelfAttention"
        module: Any = self._model.get_submodule(attention)
        by_place: Tensor = module.compute_bias(farthest + 1, farthest + 1)[0]
        # the last row holds the distances -farthest to 0, the first those from 0 on
        by_distance = torch.cat([by_place[:, -1], by_place[:, 0, 1:]], dim=1).T
        table = graph.stored(f"{attention}.bias_by_distance", by_distance.numpy())
        ends = (graph.constant(end) for end in (-farthest, farthest))
        place = graph.op("Add", graph.op("Clip", distance, *ends), graph.constant(farthest))
        bias = graph.op("Transpose", graph.op("Gather", table, place), perm=[2, 0, 1])
        return graph.op("Unsqueeze", bias, graph.constant([0]))

    def _key_value(self, graph: OnnxGraph, attention: str, x: str) -> KeyValue:
        key, value = (
            split(graph, graph.linear(x, f"{attention}.{name}"), self.heads) for name in "kv"
        )
        return key, value

    def _attention(
        self, graph: OnnxGraph, attention: str, x: str, key_value: KeyValue, bias: str
    ) -> str:
        query = graph.linear(x, f"{attention}.q")
        return graph.linear(attend(graph, query, *key_value, bias, self.heads), f"{attention}.o")

    def _feed_forward(self, graph: OnnxGraph, layer: str, x: str) -> str:
        dense = f"{layer}.DenseReluDense"
        y = self._norm(graph, f"{layer}.layer_norm", x)
        function = self.config["dense_act_fn"]
        if self.config["is_gated_act"]:
            gate = activate(graph, function, graph.linear(y, f"{dense}.wi_0"))
            y = graph.op("Mul", gate, graph.linear(y, f"{dense}.wi_1"))
        else:
            y = activate(graph, function, graph.linear(y, f"{dense}.wi"))
        return graph.op("Add", x, graph.linear(y, f"{dense}.wo"))

    def _norm(self, graph: OnnxGraph, norm: str, x: str) -> str:
        """x / sqrt(mean(x^2) + epsilon) * weight."""
        square = graph.op("ReduceMean", graph.op("Mul", x, x), graph.constant([-1]))
        epsilon = graph.number(self.config["layer_norm_epsilon"])
        root = graph.op("Sqrt", graph.op("Add", square, epsilon))
        return graph.op("Mul", graph.op("Div", x, root), graph.weight(f"{norm}.weight"))
