"""Attention and its masks as ONNX nodes, alike in every family."""

from dataclasses import dataclass

import numpy as np

from dq_lightning.artifacts.onnx_builder import OnnxGraph

# Of keys that do not exist: far below every score, and no infinity, whose row of all would be NaN.
_NEVER = float(np.finfo(np.float32).min) / 2


KeyValue = tuple[str, str]
"""Keys and values, (batch, heads, keys, size) each."""


@dataclass(frozen=True)
class Heads:
    """How a vector is cut: `number` heads of `size`; scale: of the queries."""

    number: int
    size: int
    scale: float = 1.0


def split(graph: OnnxGraph, x: str, heads: Heads) -> str:
    """(batch, length, width) to (batch, heads, length, size)."""
    shape = graph.constant([0, 0, heads.number, heads.size])
    return graph.op("Transpose", graph.op("Reshape", x, shape), perm=[0, 2, 1, 3])


def attend(graph: OnnxGraph, query: str, key: str, value: str, bias: str, heads: Heads) -> str:
    """softmax(Q K^T scale + bias) V, heads put together again.

    query: (batch, length, width); key, value: split; bias: broadcasts to
    (batch, heads, length, keys).
    """
    query = split(graph, query, heads)
    if heads.scale != 1.0:
        query = graph.op("Mul", query, graph.number(heads.scale))
    scores = graph.op("MatMul", query, graph.op("Transpose", key, perm=[0, 1, 3, 2]))
    probabilities = graph.op("Softmax", graph.op("Add", scores, bias), axis=-1)
    values = graph.op("MatMul", probabilities, value)
    values = graph.op("Transpose", values, perm=[0, 2, 1, 3])
    return graph.op("Reshape", values, graph.constant([0, 0, heads.number * heads.size]))


def joined(graph: OnnxGraph, past: KeyValue, new: KeyValue) -> KeyValue:
    """Keys and values one after the other."""
    key, value = (graph.op("Concat", *both, axis=2) for both in zip(past, new, strict=True))
    return key, value


def padding_bias(graph: OnnxGraph, mask: str) -> str:
    """(batch, 1, 1, keys): 0 where the mask is 1, else a number that no key outweighs."""
    absent = graph.op("Sub", graph.number(1.0), graph.op("Cast", mask, to=1))
    absent = graph.op("Unsqueeze", absent, graph.constant([1, 2]))
    return graph.op("Mul", absent, graph.number(_NEVER))


def length_of(graph: OnnxGraph, x: str, axis: int) -> str:
    """The size of an axis, a scalar."""
    return graph.op("Gather", graph.op("Shape", x), graph.constant(axis))


def count(graph: OnnxGraph, start: str, stop: str) -> str:
    """start, ..., stop - 1."""
    return graph.op("Range", start, stop, graph.constant(1))


def distances(graph: OnnxGraph, queries: str, keys: str) -> str:
    """(queries, keys): position of the key less that of the query."""
    rows = graph.op("Unsqueeze", queries, graph.constant([1]))
    return graph.op("Sub", graph.op("Unsqueeze", keys, graph.constant([0])), rows)


def causal_bias(graph: OnnxGraph, distance: str) -> str:
    """(queries, keys): 0 for keys up to the query itself."""
    later = graph.op("Greater", distance, graph.constant(0))
    return graph.op("Where", later, graph.number(_NEVER), graph.number(0.0))
