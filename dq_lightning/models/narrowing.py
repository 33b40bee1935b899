"""Students with fewer heads, a smaller width or smaller feed-forward layers than their teacher."""

import copy
import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dq_lightning.models.family import ModelFamily
from dq_lightning.models.layout import (
    FEED_FORWARD,
    HEADS,
    PAIRS,
    VALUES,
    WIDTH,
    Axes,
    Layout,
    Sizes,
)

Weights = dict[str, Tensor]
Place = tuple[str, str]
"""A module's name and one of its axes."""
_WHOLE_MODEL: Place = ("", WIDTH)


@dataclass(frozen=True)
class Narrowing:
    """Sizes of a student, of both stacks; None leaves one as it is in the teacher.

    Raises ValueError for what is no whole number from 1.
    """

    num_heads: int | None = None
    width: int | None = None
    feed_forward: int | None = None

    def __post_init__(self) -> None:
        for key, size in self.given().items():
            if type(size) is not int or size < 1:
                raise ValueError(
                    f"student.{key}={size} is no whole number from 1; write one, or null for the "
                    "teacher's."
                )

    def given(self) -> dict[str, int]:
        """The sizes that are given, by name."""
        return {name: size for name, size in asdict(self).items() if size is not None}

    def words(self) -> list[str]:
        """The same for the name of a run: ["num_heads=2"]."""
        return [f"{name}={size}" for name, size in self.given().items()]


AS_THE_TEACHER = Narrowing()


def narrow_config(config: Any, family: ModelFamily, narrowing: Narrowing) -> Any:
    """A copy of a teacher's config with the student's sizes.

    Raises ValueError for a size above the teacher's, for heads that do not divide the teacher's,
    and for a width that the heads do not divide.
    """
    layout = family.layout
    _check(layout, layout.sizes(config), narrowing)
    narrowed = copy.deepcopy(config)
    for keys, size in (
        ((layout.width_key,), narrowing.width),
        (layout.heads_keys, narrowing.num_heads),
        (layout.feed_forward_keys, narrowing.feed_forward),
    ):
        for key in keys if size is not None else ():
            setattr(narrowed, key, size)
    return narrowed


def _check(layout: Layout, stacks: tuple[Sizes, Sizes], narrowing: Narrowing) -> None:
    teacher_heads = math.gcd(*(stack.heads for stack in stacks))
    most = {
        "width": stacks[0].width,
        "feed_forward": min(stack.feed_forward for stack in stacks),
    }
    for key, size in narrowing.given().items():
        if key in most and size > most[key]:
            raise ValueError(
                f"student.{key}={size} is more than the teacher's {most[key]}; write "
                f"student.{key}={most[key]} or less, or null for the teacher's."
            )
    if teacher_heads % (narrowing.num_heads or 1):
        divisors = [str(n) for n in range(1, teacher_heads + 1) if teacher_heads % n == 0]
        raise ValueError(
            f"student.num_heads={narrowing.num_heads} does not divide the attention heads of the "
            f"teacher ({stacks[0].heads} in the encoder, {stacks[1].heads} in the decoder); write "
            f"one of {', '.join(divisors)}, or null for the teacher's."
        )
    heads = [narrowing.num_heads or stack.heads for stack in stacks]
    step = 1 if layout.head_size_key else math.lcm(*heads)
    if narrowing.width is not None and narrowing.width % step:
        fitting = math.ceil(narrowing.width / step) * step
        raise ValueError(
            f"student.width={narrowing.width} cannot be split into {step} attention heads; write a "
            f"multiple of {step}, such as student.width={fitting}, or set student.num_heads."
        )


def narrow_weights(
    weights: Weights, family: ModelFamily, teacher_config: Any, student_config: Any
) -> Weights:
    """The teacher's weights cut to the student's sizes; without those the student computes.

    - width: the features with the largest norm over the token embeddings stay, the same ones in
      the whole model.
    - feed_forward: in each layer the neurons with the largest product of the norms of their row in
      the first matrix (and in the gate) and their column in the second stay.
    - heads: with g teacher heads of size k for each student head of size k', a student head stands
      for g adjacent heads and keeps the k' largest of their g k query-key pairs, by the product of
      the norms of the two rows; likewise of their value-output pairs. Its score is the mean of the
      merged heads' scores as far as their pairs are kept: queries are multiplied by
      sqrt(k'/k) / g, or by 1/g where attention does not scale (T5), whose position biases become
      the mean of those merged.

    A row counts with its bias; what stays keeps its order. What a model multiplies by a function
    of its width (an embedding scale, T5's output scale) follows the student's width.
    """
    before, after = (family.layout.sizes(config) for config in (teacher_config, student_config))
    if before == after:
        return weights
    computes_anew = before[0].width != after[0].width
    axes = {
        name: family.layout.axes_of(name)
        for name in weights
        if not (computes_anew and family.computes(name))
    }
    kept = _kept(weights, axes, family, after)
    narrowed: Weights = {}
    for name, named in axes.items():
        stack, value = _stack(name, family), weights[name]
        for dim, axis in enumerate(named):
            if axis == HEADS:
                value = value.unflatten(dim, (after[stack].heads, -1)).mean(dim + 1)
            elif axis is not None:
                value = value.index_select(dim, kept[_place(name, axis)])
        if family.layout.is_query(name):
            factor = query_factor(before[stack], after[stack], family.layout.scales_scores)
            value = value if factor == 1.0 else value * factor
        narrowed[name] = value
    return narrowed


def query_factor(teacher: Sizes, student: Sizes, scales_scores: bool) -> float:
    """What queries are multiplied by, so that a student head's score is the mean of those merged.

    With g heads of size k merged into one of size k': sqrt(k'/k) / g, because attention divides
    by the square root of the student's head size; 1/g where it does not (scales_scores=False).
    """
    mean = student.heads / teacher.heads
    return mean * math.sqrt(student.head_size / teacher.head_size) if scales_scores else mean


def strongest(
    importance: Float[Tensor, " features"], groups: int, size: int
) -> Int[Tensor, " kept"]:
    """Indices, ascending, of the `size` largest of each of `groups` equal parts.

    Of equal ones the first stay.
    """
    parts = importance.unflatten(0, (groups, -1))
    order = parts.argsort(dim=-1, descending=True, stable=True)[:, :size].sort(dim=-1).values
    starts = torch.arange(groups, device=importance.device) * parts.shape[1]
    return (order + starts.unsqueeze(1)).flatten()


def _kept(
    weights: Weights, axes: dict[str, Axes], family: ModelFamily, after: tuple[Sizes, Sizes]
) -> dict[Place, Tensor]:
    """The indices that stay, of the width and of the inner features of each layer."""
    tables = [name for name in axes if family.layout.is_token_embedding(name)]
    features = torch.stack([_norms(weights, name, 1) for name in tables]).norm(dim=0)
    kept = {_WHOLE_MODEL: strongest(features, 1, after[0].width)}
    products: dict[Place, Tensor] = {}
    for name, named in axes.items():
        for dim, axis in enumerate(named):
            if axis in (PAIRS, VALUES, FEED_FORWARD) and len(named) == 2:
                place, norms = _place(name, axis), _norms(weights, name, dim)
                products[place] = products[place] * norms if place in products else norms
    for (block, axis), product in products.items():
        sizes = after[_stack(block, family)]
        whole = axis == FEED_FORWARD
        groups, size = (1, sizes.feed_forward) if whole else (sizes.heads, sizes.head_size)
        kept[block, axis] = strongest(product, groups, size)
    return kept


def _norms(weights: Weights, name: str, dim: int) -> Tensor:
    """The norm of every slice of a matrix along `dim`; a row with its bias."""
    matrix = weights[name]
    dtype = torch.promote_types(matrix.dtype, torch.float32)
    norms = torch.linalg.vector_norm(matrix, dim=1 - dim, dtype=dtype)
    bias = weights.get(f"{name.removesuffix('weight')}bias")
    return norms if dim or bias is None else torch.hypot(norms, bias.to(dtype))


def _place(name: str, axis: str) -> Place:
    """Where one choice of indices holds: the whole model, or the module two levels up."""
    return _WHOLE_MODEL if axis == WIDTH else (name.rsplit(".", 2)[0], axis)


def _stack(name: str, family: ModelFamily) -> int:
    """0 for the encoder, and for what both share; 1 for the decoder."""
    return int(name.startswith(family.decoder_layer_prefix))
