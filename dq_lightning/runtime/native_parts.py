"""A packed student as the parts that the native engine (csrc/model.h) asks for by name."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from dq_lightning.artifacts.packed_matrix import PackedMatrix
from dq_lightning.artifacts.packed_student import PackedStudent
from dq_lightning.models.family import ModelFamily, family_named
from dq_lightning.models.layout import T5_LAYOUT, Sizes
from dq_lightning.quantization.description import QuantizerDescription
from dq_lightning.runtime.empty_model import computed_weights, empty_model

ACTIVATIONS = {"relu": 0, "gelu": 1, "gelu_new": 2, "silu": 3, "swish": 3}
"""csrc/ops.h's Activation."""
LAYER_NORM_EPSILON = 1e-5
MOST_DISTANCES = 65536
STACKS = ("encoder", "decoder")

_BART_ATTENTION = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "output": "out_proj"}
_T5_ATTENTION = {"query": "q", "key": "k", "value": "v", "output": "o"}


class UnsupportedError(ValueError):
    """What the native engine cannot do, in one sentence; the torch engine can."""


@dataclass
class Parts:
    """Matrices and numbers by name; `names`: the name of a part -> that of its matrix."""

    matrices: dict[str, PackedMatrix | Tensor] = field(
        default_factory=dict[str, PackedMatrix | Tensor]
    )
    numbers: dict[str, Tensor] = field(default_factory=dict[str, Tensor])
    names: dict[str, str] = field(default_factory=dict[str, str])


def native_parts(student: PackedStudent) -> Parts:
    """Everything the engine needs, none of it copied.

    Raises UnsupportedError for a quantizer that it has no kernel for, ValueError for a weight that
    the student lacks and for a config that makes no sense.
    """
    family = family_named(student.family)
    reader = _T5Reader if family.layout is T5_LAYOUT else _BartReader
    try:
        return reader(student, family).read()
    except (KeyError, TypeError, IndexError, ZeroDivisionError) as error:
        raise ValueError(
            f"The packed student's config cannot be that of its weights ({error!r})."
        ) from error


class _Reader:
    """Reads what every family has; families differ in names, norms and positions."""

    def __init__(self, student: PackedStudent, family: ModelFamily) -> None:
        self.student, self.family = student, family
        self.config: Mapping[str, Any] = student.config
        self.parts = Parts()

    def number(self, name: str, value: float | Sequence[float] | Tensor) -> None:
        values = torch.as_tensor(value, dtype=torch.float32)
        self.parts.numbers[name] = values.flatten().contiguous()

    def key(self, key: str) -> str:
        """The name of the matrix or tensor behind a key."""
        if key not in self.student.uses:
            raise ValueError(f"The packed student lacks {key}; pack it again from its run.")
        return self.student.uses[key]

    def matrix(self, name: str, key: str) -> None:
        stored = self.key(key)
        self.parts.names[name] = stored
        if stored not in self.student.matrices:
            self.parts.matrices[stored] = self.student.tensors[stored].float().contiguous()
            return
        matrix = self.student.matrices[stored]
        if matrix.group_size is not None or matrix.zero_code is not None:
            kind = "scales for groups of columns" if matrix.group_size else "a code for zero"
            raise UnsupportedError(f"{key} has {kind}, which the native engine cannot multiply by.")
        self.parts.matrices[stored] = matrix

    def linear(self, name: str, module: str) -> None:
        self.matrix(name, f"{module}.weight")
        if f"{module}.bias" in self.student.uses:
            self.number(f"{name}.bias", self.student.weight(f"{module}.bias"))
        self.quantizer(f"{name}.quantizer", module, self.student.inputs.get(module))

    def quantizer(self, name: str, module: str, described: QuantizerDescription | None) -> None:
        if described is None:
            return
        arguments = described.arguments
        per_vector = arguments.get("granularity") in ("per_token", "per_row")
        if described.kind != "SymmetricQuantizer" or not per_vector:
            raise UnsupportedError(
                f"The native engine has no {described.kind} ({arguments.get('granularity')}) for "
                f"activations, which {module} asks for; it has SymmetricQuantizer (per_token)."
            )
        bits, clip = arguments["bits"], arguments.get("clip")
        assert isinstance(bits, int) and (clip is None or isinstance(clip, (int, float)))
        self.number(name, [2 ** (bits - 1) - 1, math.inf if clip is None else float(clip)])

    def norm(self, name: str, module: str) -> None:
        for kind in ("weight", "bias"):
            if kind == "weight" or f"{module}.{kind}" in self.student.uses:
                self.key(f"{module}.{kind}")
                self.number(f"{name}.{kind}", self.student.weight(f"{module}.{kind}"))

    def attention(self, name: str, module: str, projections: Mapping[str, str]) -> None:
        for own, theirs in projections.items():
            self.linear(f"{name}.{own}", f"{module}.{theirs}")
        for operand, described in self.student.operands.get(module, {}).items():
            self.quantizer(f"{name}.operands.{operand}", module, described)

    def stack(self, stack: str, sizes: Sizes, layers: int, activation: str) -> None:
        if activation not in ACTIVATIONS:
            raise UnsupportedError(f"The native engine has no activation {activation!r}.")
        scales = self.family.layout.scales_scores
        for name, value in {
            "layers": layers, "heads": sizes.heads, "head_width": sizes.head_size,
            "feed_forward_width": sizes.feed_forward, "activation": ACTIVATIONS[activation],
            "attention_scale": sizes.head_size**-0.5 if scales else 1.0,
        }.items():  # fmt: skip
            self.number(f"{stack}.{name}", value)

    def head(self, scale: float) -> None:
        self.number("width", self.config[self.family.layout.width_key])
        self.number("logits_scale", scale)
        self.linear("head", self.family.head)
        if "final_logits_bias" in self.student.uses:
            self.number("head.bias", self.student.weight("final_logits_bias"))


class _BartReader(_Reader):
    """BART, mBART, Pegasus, Marian and M2M-100."""

    def read(self) -> Parts:
        self.number("norm_first", "model.encoder.layer_norm.weight" in self.student.uses)
        self.number("centred_norms", True)
        self.number("epsilon", LAYER_NORM_EPSILON)
        self.head(1.0)
        sizes = self.family.layout.sizes(_Attributes(self.config))
        layers = self.family.num_layers(_Attributes(self.config))
        for stack, own, count in zip(STACKS, sizes, layers, strict=True):
            self.stack(stack, own, count, str(self.config["activation_function"]))
            self.number(f"{stack}.gated", False)
            self.embeddings(stack, own.width)
            for number in range(count):
                self.layer(stack, number)
        return self.parts

    def embeddings(self, stack: str, width: int) -> None:
        module = f"model.{stack}"
        self.matrix(f"{stack}.embedding", f"{module}.embed_tokens.weight")
        scale = math.sqrt(width) if self.config["scale_embedding"] else 1.0
        self.number(f"{stack}.embed_scale", scale)
        for name, norm in {
            "embedding_norm": "layernorm_embedding",
            "final_norm": "layer_norm",
        }.items():
            if f"{module}.{norm}.weight" in self.student.uses:
                self.norm(f"{stack}.{name}", f"{module}.{norm}")
        self.positions(stack, f"{module}.embed_positions.weight")

    def positions(self, stack: str, key: str) -> None:
        """A learned table, which begins at its row 2, or a computed one."""
        offset = 2
        if key in self.student.uses:
            self.matrix(f"{stack}.positions", key)
        else:
            tables = computed_weights(empty_model(self.family, self.config))
            padded = f"{key}s" in tables  # M2M-100: the pad token stands at a row of zeros
            self.parts.matrices[key] = tables[f"{key}s" if padded else key].float().contiguous()
            self.parts.names[f"{stack}.positions"] = key
            pad = self.config["pad_token_id"]
            offset = pad + 1 if padded else 0
            if padded:
                self.number(f"{stack}.unplaced_token", pad)
        self.number(f"{stack}.position_offset", offset)

    def layer(self, stack: str, number: int) -> None:
        own, module = f"{stack}.{number}", f"model.{stack}.layers.{number}"
        self.attention(f"{own}.self", f"{module}.self_attn", _BART_ATTENTION)
        self.norm(f"{own}.self.norm", f"{module}.self_attn_layer_norm")
        if stack == "decoder":
            self.attention(f"{own}.cross", f"{module}.encoder_attn", _BART_ATTENTION)
            self.norm(f"{own}.cross.norm", f"{module}.encoder_attn_layer_norm")
        self.linear(f"{own}.feed_forward.input", f"{module}.fc1")
        self.linear(f"{own}.feed_forward.output", f"{module}.fc2")
        self.norm(f"{own}.feed_forward.norm", f"{module}.final_layer_norm")


class _T5Reader(_Reader):
    """T5, flan-T5 and mT5."""

    def read(self) -> Parts:
        config = self.config
        self.number("norm_first", True)
        self.number("centred_norms", False)
        self.number("epsilon", config["layer_norm_epsilon"])
        scaled = config["model_type"] == "t5" and config["scale_decoder_outputs"]
        self.head(config["d_model"] ** -0.5 if scaled else 1.0)
        sizes = self.family.layout.sizes(_Attributes(config))
        layers = self.family.num_layers(_Attributes(config))
        for stack, own, count in zip(STACKS, sizes, layers, strict=True):
            self.stack(stack, own, count, str(config["dense_act_fn"]))
            self.number(f"{stack}.gated", config["is_gated_act"])
            self.matrix(f"{stack}.embedding", f"{stack}.embed_tokens.weight")
            self.number(f"{stack}.embed_scale", 1.0)
            self.norm(f"{stack}.final_norm", f"{stack}.final_layer_norm")
            self.relative_bias(stack)
            for number in range(count):
                self.layer(stack, number)
        return self.parts

    def relative_bias(self, stack: str) -> None:
        key = f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        self.key(key)
        buckets, far = (
            self.config[f"relative_attention_{name}"] for name in ("num_buckets", "max_distance")
        )
        if not 0 < far <= MOST_DISTANCES:
            raise ValueError(f"relative_attention_max_distance={far} is not in 1 to 65536.")
        of = buckets_by_distance(buckets, far, both_ways=stack == "encoder")
        self.number(f"{stack}.relative_bias", self.student.weight(key)[of].T)
        self.number(f"{stack}.far", far)

    def layer(self, stack: str, number: int) -> None:
        own, module = f"{stack}.{number}", f"{stack}.block.{number}.layer"
        self.attention(f"{own}.self", f"{module}.0.SelfAttention", _T5_ATTENTION)
        self.norm(f"{own}.self.norm", f"{module}.0.layer_norm")
        last = 1
        if stack == "decoder":
            self.attention(f"{own}.cross", f"{module}.1.EncDecAttention", _T5_ATTENTION)
            self.norm(f"{own}.cross.norm", f"{module}.1.layer_norm")
            last = 2
        dense = f"{module}.{last}.DenseReluDense"
        if self.config["is_gated_act"]:
            self.linear(f"{own}.feed_forward.input", f"{dense}.wi_0")
            self.linear(f"{own}.feed_forward.gate", f"{dense}.wi_1")
        else:
            self.linear(f"{own}.feed_forward.input", f"{dense}.wi")
        self.linear(f"{own}.feed_forward.output", f"{dense}.wo")
        self.norm(f"{own}.feed_forward.norm", f"{module}.{last}.layer_norm")


class _Attributes:
    """A config's dict as an object."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.__dict__.update(config)


def buckets_by_distance(num_buckets: int, far: int, *, both_ways: bool) -> Tensor:
    """T5's bucket of every distance, key minus query, from -far to far (Raffel et al. 2020).

    Half of the buckets hold one distance each, the others logarithmically more up to far. Keys
    after the query share the buckets half and half with those before it, or all have the first.
    """
    distance = torch.arange(-far, far + 1)
    after = torch.zeros_like(distance)
    if both_ways:
        num_buckets //= 2
        after = (distance > 0) * num_buckets
        distance = distance.abs()
    else:
        distance = -distance.clamp(max=0)
    exact = num_buckets // 2
    share = torch.log(distance.clamp(min=1).float() / exact) / math.log(far / exact)
    beyond = exact + (share * (num_buckets - exact)).long()
    return after + torch.where(distance < exact, distance, beyond.clamp(max=num_buckets - 1))
