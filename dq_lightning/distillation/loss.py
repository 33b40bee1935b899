"""What a loss is, what it reads, and how student and teacher tensors are paired."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

Batch = Mapping[str, Tensor]
LayerReduction = Literal["sum", "mean"]

HIDDEN_STATES = "hidden_states"
ATTENTIONS = "attentions"
QUERY_STATES = "query_states"
KEY_STATES = "key_states"
VALUE_STATES = "value_states"

_REMEDY = {
    HIDDEN_STATES: "call both models with output_hidden_states=True",
    ATTENTIONS: (
        "call both models with output_attentions=True and an attention implementation that "
        "returns its maps (eager, not sdpa)"
    ),
    **dict.fromkeys(
        (QUERY_STATES, KEY_STATES, VALUE_STATES),
        "run both models with models.recording.record and this loss's requires",
    ),
}

_EQUAL_HEADS = (
    "this loss needs equal numbers of heads: drop student.num_heads, or distil attention with "
    "distill=amad"
)


class Outputs(Protocol):
    """The attributes of transformers' `Seq2SeqLMOutput` that losses read.

    Hidden states are (batch, length, features), embeddings first and then one per student layer;
    attentions are probabilities (batch, heads, queries, keys), one per student layer; query, key
    and value states are those of self-attention (batch, length, width), one per student layer. The
    teacher has already selected its layers, so position i of both outputs belongs together.
    """

    @property
    def logits(self) -> Tensor: ...
    @property
    def encoder_hidden_states(self) -> tuple[Tensor, ...] | None: ...
    @property
    def decoder_hidden_states(self) -> tuple[Tensor, ...] | None: ...
    @property
    def encoder_attentions(self) -> tuple[Tensor, ...] | None: ...
    @property
    def decoder_attentions(self) -> tuple[Tensor, ...] | None: ...
    @property
    def cross_attentions(self) -> tuple[Tensor, ...] | None: ...
    @property
    def encoder_query_states(self) -> tuple[Tensor, ...] | None: ...
    @property
    def encoder_key_states(self) -> tuple[Tensor, ...] | None: ...
    @property
    def encoder_value_states(self) -> tuple[Tensor, ...] | None: ...
    @property
    def decoder_query_states(self) -> tuple[Tensor, ...] | None: ...
    @property
    def decoder_key_states(self) -> tuple[Tensor, ...] | None: ...
    @property
    def decoder_value_states(self) -> tuple[Tensor, ...] | None: ...


@dataclass(frozen=True)
class Widths:
    """Features of a model's hidden states, and of its self-attention's queries, keys, values.

    heads: of the attention in the encoder, and in the decoder.
    """

    hidden: int
    attention: int
    heads: tuple[int, int] = (1, 1)


class Loss(nn.Module, ABC):
    """One scalar term of the objective.

    Contract: a mean over the real tokens of the batch, so that the value is unchanged by what
    padding holds, by how much of it there is, and by duplicating the batch. With gradient
    accumulation each micro-batch is its own token mean and the micro-batches weigh the same;
    this equals the mean of the large batch exactly when they hold equally many real tokens.
    Distillation terms are 0 at student = teacher, never negative, and send no gradient to the
    teacher; one whose formula is above 0 there says so with `zero_at_identity = False`.
    `requires` names what must be recorded: "hidden_states", "attentions", "query_states",
    "key_states", "value_states", or nothing.
    """

    requires: frozenset[str] = frozenset()
    needs_teacher: ClassVar[bool] = True
    zero_at_identity: ClassVar[bool] = True

    def bind(self, student: Widths, teacher: Widths) -> None:
        """Learn how wide the models are: called once, before the optimizer is built.

        A loss makes its own parameters here, or raises ValueError for widths it cannot compare;
        most need neither.
        """

    @abstractmethod
    def forward(
        self, student: Outputs, teacher: Outputs | None, batch: Batch
    ) -> Float[Tensor, ""]: ...


def to_compute_dtype(x: Tensor) -> Tensor:
    """Return `x` in at least float32: half precision is widened, float64 stays float64."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def pair_logits(
    student: Outputs, teacher: Outputs | None
) -> tuple[Float[Tensor, "batch target vocab"], Float[Tensor, "batch target vocab"]]:
    """Return student and detached teacher logits; raise when their shapes differ."""
    assert teacher is not None, "Objective checks that a teacher is there"
    return _pair(student.logits, teacher.logits, "logits")


def pair_layers(
    student: Outputs,
    teacher: Outputs | None,
    attribute: str,
    free_axis: int | None = None,
    project: Callable[[Tensor], Tensor] | None = None,
) -> list[tuple[Tensor, Tensor]]:
    """Return (student, detached teacher) tensors of every layer under `attribute`.

    `attribute` ends in a name that losses require. Raises ValueError when either model
    recorded nothing, left a layer out, or when the numbers of layers or the shapes differ;
    `free_axis` names the one axis in which they may (the heads, or the features). `project`
    brings the student's tensors to the teacher's shape first.
    """
    assert teacher is not None, "Objective checks that a teacher is there"
    students = _recorded(student, attribute, "student")
    teachers = _recorded(teacher, attribute, "teacher")
    if len(students) != len(teachers):
        raise ValueError(
            f"{attribute}: the student has {len(students)} tensors and the teacher "
            f"{len(teachers)}; select the teacher's layers with the student's layer mapping first"
        )
    return [
        _pair(project(s) if project else s, t, f"{attribute}[{index}]", free_axis)
        for index, (s, t) in enumerate(zip(students, teachers, strict=True))
    ]


def check_equal_heads(attributes: Collection[str], student: Widths, teacher: Widths) -> None:
    """Raise ValueError when the maps under `attributes` differ in their number of heads."""
    for attribute in attributes:
        stack = 0 if attribute.startswith("encoder") else 1
        heads, theirs = student.heads[stack], teacher.heads[stack]
        if heads != theirs:
            raise ValueError(
                f"{attribute}: the student has {heads} attention heads and the teacher {theirs}; "
                f"{_EQUAL_HEADS}"
            )


def check_layer_reduction(reduction: str) -> LayerReduction:
    """Return `reduction`; raise ValueError unless it is "sum" or "mean"."""
    for allowed in get_args(LayerReduction):
        if reduction == allowed:
            return allowed
    raise ValueError(f"reduction_over_layers={reduction!r} is unknown: write sum or mean")


def reduce_layers(terms: list[Float[Tensor, ""]], reduction: LayerReduction) -> Float[Tensor, ""]:
    """Return the sum or the mean of one stack's per-layer terms."""
    total = torch.stack(terms).sum()
    return total / len(terms) if reduction == "mean" else total


def _recorded(outputs: Outputs, attribute: str, who: str) -> tuple[Tensor, ...]:
    (kind,) = (kind for kind in _REMEDY if attribute.endswith(kind))
    tensors: tuple[Tensor | None, ...] = getattr(outputs, attribute, None) or ()
    present = tuple(tensor for tensor in tensors if tensor is not None)
    # Hidden states hold the embeddings besides the layers: one tensor alone means no layer.
    fewest = 2 if kind == HIDDEN_STATES else 1
    if len(present) < max(fewest, len(tensors)):
        raise ValueError(
            f"the {who} recorded {len(present)} of {max(fewest, len(tensors))} {attribute}: "
            f"{_REMEDY[kind]}"
        )
    return present


def _remedy_for_shapes(student: Tensor, teacher: Tensor, name: str) -> str:
    if HIDDEN_STATES in name and student.shape[:-1] == teacher.shape[:-1]:
        return "this loss needs equal widths: drop student.width or set the loss's weight to 0"
    if ATTENTIONS in name and student.shape[2:] == teacher.shape[2:]:
        return _EQUAL_HEADS
    return "build the student from this teacher, or leave this loss out"


def _pair(
    student: Tensor, teacher: Tensor, name: str, free_axis: int | None = None
) -> tuple[Tensor, Tensor]:
    fixed = [axis for axis in range(student.ndim) if axis != free_axis]
    if student.ndim != teacher.ndim or any(student.shape[a] != teacher.shape[a] for a in fixed):
        raise ValueError(
            f"{name}: the student's shape {tuple(student.shape)} differs from the teacher's "
            f"{tuple(teacher.shape)}; {_remedy_for_shapes(student, teacher, name)}"
        )
    return to_compute_dtype(student), to_compute_dtype(teacher.detach())
