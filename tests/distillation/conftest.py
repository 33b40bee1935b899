"""A student, a teacher and a batch made of random tensors, shaped as transformers shapes them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import pytest
import torch
from torch import Tensor

ENCODER_LAYERS, DECODER_LAYERS, HEADS, FEATURES, VOCAB = 2, 3, 2, 4, 7
ATTENTION_WIDTH = 8


@dataclass
class RandomOutputs:
    """The attributes of `Seq2SeqLMOutput` that losses read."""

    logits: Tensor
    encoder_hidden_states: tuple[Tensor, ...] | None
    decoder_hidden_states: tuple[Tensor, ...] | None
    encoder_attentions: tuple[Tensor, ...] | None
    decoder_attentions: tuple[Tensor, ...] | None
    cross_attentions: tuple[Tensor, ...] | None
    encoder_query_states: tuple[Tensor, ...] | None
    encoder_key_states: tuple[Tensor, ...] | None
    encoder_value_states: tuple[Tensor, ...] | None
    decoder_query_states: tuple[Tensor, ...] | None
    decoder_key_states: tuple[Tensor, ...] | None
    decoder_value_states: tuple[Tensor, ...] | None

    def tensors(self) -> list[Tensor]:
        """Return every tensor."""
        values = [getattr(self, field.name) for field in fields(self)]
        return [
            tensor
            for value in values
            for tensor in (value if isinstance(value, tuple) else (value,))
        ]

    def map(self, change: Callable[[str, Tensor], Tensor]) -> "RandomOutputs":
        """Return outputs whose tensors are `change(attribute, tensor)`."""
        changed = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, tuple):
                changed[field.name] = tuple(change(field.name, tensor) for tensor in value)
            else:
                changed[field.name] = change(field.name, value)
        return RandomOutputs(**changed)


@dataclass
class Sample:
    """Two outputs and the batch they answer."""

    student: RandomOutputs
    teacher: RandomOutputs
    batch: dict[str, Tensor]


def random_outputs(
    generator: torch.Generator, batch: int, source: int, target: int, dtype: torch.dtype
) -> RandomOutputs:
    """Return random outputs; attentions are probabilities, causal in the decoder."""

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    def maps(queries: int, keys: int, causal: bool = False) -> Tensor:
        scores = normal(batch, HEADS, queries, keys)
        if causal:
            scores = scores.masked_fill(torch.ones(queries, keys).triu(1).bool(), -torch.inf)
        return scores.softmax(-1)

    def projected(layers: int, length: int) -> tuple[Tensor, ...]:
        return tuple(normal(batch, length, ATTENTION_WIDTH) for _ in range(layers))

    outputs = RandomOutputs(
        logits=normal(batch, target, VOCAB),
        encoder_hidden_states=tuple(
            normal(batch, source, FEATURES) for _ in range(ENCODER_LAYERS + 1)
        ),
        decoder_hidden_states=tuple(
            normal(batch, target, FEATURES) for _ in range(DECODER_LAYERS + 1)
        ),
        encoder_attentions=tuple(maps(source, source) for _ in range(ENCODER_LAYERS)),
        decoder_attentions=tuple(maps(target, target, True) for _ in range(DECODER_LAYERS)),
        cross_attentions=tuple(maps(target, source) for _ in range(DECODER_LAYERS)),
        **{
            f"{stack}_{kind}_states": projected(layers, length)
            for stack, layers, length in (
                ("encoder", ENCODER_LAYERS, source),
                ("decoder", DECODER_LAYERS, target),
            )
            for kind in ("query", "key", "value")
        },
    )
    return outputs.map(lambda _, tensor: tensor.to(dtype).requires_grad_())


def random_batch(
    generator: torch.Generator, sources: Sequence[int], targets: Sequence[int]
) -> dict[str, Tensor]:
    """Return a batch whose rows have the given numbers of real tokens."""
    source = torch.arange(max(sources)) < torch.tensor(sources).unsqueeze(1)
    target = torch.arange(max(targets)) < torch.tensor(targets).unsqueeze(1)
    tokens = torch.randint(VOCAB, target.shape, generator=generator)
    return {"attention_mask": source.long(), "labels": tokens.masked_fill(~target, -100)}


@pytest.fixture
def make_sample() -> Callable[..., Sample]:
    """Return a maker of random samples with padding in source and target."""

    def make(
        dtype: torch.dtype = torch.float64,
        seed: int = 0,
        sources: Sequence[int] = (5, 3),
        targets: Sequence[int] = (2, 4),
    ) -> Sample:
        generator = torch.Generator().manual_seed(seed)
        batch = random_batch(generator, sources, targets)
        shape = (len(sources), max(sources), max(targets))
        student, teacher = (random_outputs(generator, *shape, dtype) for _ in range(2))
        return Sample(student, teacher, batch)

    return make
