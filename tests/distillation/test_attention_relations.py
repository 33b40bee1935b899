"""MiniLMv2's relations by their formula, written with loops, and between unequal models."""

import math
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from dq_lightning.distillation.attention_relations import AttentionRelationsLoss
from dq_lightning.distillation.loss import Widths

# Two source tokens and a padding one; three target tokens.
BATCH = {"attention_mask": torch.tensor([[1, 1, 0]]), "labels": torch.tensor([[0, 1, 1]])}
KINDS = ("query", "key", "value")


def states(width: int, seed: int, layers: int = 2) -> SimpleNamespace:
    """Random queries, keys and values of both stacks."""
    generator = torch.Generator().manual_seed(seed)

    def layer() -> Tensor:
        return torch.randn(1, 3, width, generator=generator, dtype=torch.float64)

    names = [f"{stack}_{kind}_states" for stack in ("encoder", "decoder") for kind in KINDS]
    return SimpleNamespace(**{name: tuple(layer() for _ in range(layers)) for name in names})


def relation(vectors: Tensor, reader: int, read: list[int]) -> list[float]:
    """The softmax of the scaled products of one token with the tokens it may read."""
    scale = math.sqrt(vectors.shape[-1])
    scores = [float(vectors[reader] @ vectors[token]) / scale for token in read]
    total = sum(math.exp(score) for score in scores)
    return [math.exp(score) / total for score in scores]


def by_the_formula(student: Tensor, teacher: Tensor, heads: int, causal: bool) -> float:
    length, terms = (3, []) if causal else (2, [])
    for head in range(heads):
        for token in range(length):
            read = list(range(token + 1 if causal else length))
            part_s, part_t = (x[0].chunk(heads, dim=-1)[head] for x in (student, teacher))
            p, q = relation(part_t, token, read), relation(part_s, token, read)
            terms.append(sum(a * math.log(a / b) for a, b in zip(p, q, strict=True)))
    return sum(terms) / len(terms)


@pytest.mark.parametrize("heads", [1, 2, 4])
@pytest.mark.parametrize("widths", [(8, 8), (4, 12), (12, 8)])
@pytest.mark.parametrize("stack", ["encoder", "decoder"])
def test_is_the_published_formula(stack: str, widths: tuple[int, int], heads: int) -> None:
    student, teacher = states(widths[0], 0), states(widths[1], 1)
    weights = {"query": 1.0, "key": 0.5, "value": 2.0}
    expected = sum(
        weight
        * by_the_formula(
            getattr(student, f"{stack}_{kind}_states")[-1],
            getattr(teacher, f"{stack}_{kind}_states")[-1],
            heads,
            causal=stack == "decoder",
        )
        for kind, weight in weights.items()
    )
    only = {"encoder": stack == "encoder", "decoder": stack == "decoder"}
    loss = AttentionRelationsLoss(**only, **weights, relation_heads=heads)
    assert loss(student, teacher, BATCH).item() == pytest.approx(expected, rel=1e-12)


def test_one_relation_by_hand() -> None:
    # Both tokens are alike to the student: its rows are 1/2, 1/2. The teacher's products are
    # 1, log 3 and (log 3)^2.
    log = math.log(3.0)
    student = SimpleNamespace(encoder_key_states=(torch.zeros(1, 3, 2, dtype=torch.float64),))
    teacher_keys = torch.tensor([[[1.0], [log], [7.0]]], dtype=torch.float64)
    teacher = SimpleNamespace(encoder_key_states=(teacher_keys,))
    first, second = 3 / (3 + math.e), 1 / (1 + math.exp(log * log - log))
    rows = [(first, 1 - first), (second, 1 - second)]
    expected = sum(p * math.log(2 * p) for row in rows for p in row) / 2
    loss = AttentionRelationsLoss(decoder=False, query=0, value=0, relation_heads=1)
    assert loss(student, teacher, BATCH).item() == pytest.approx(expected, rel=1e-12)


def test_all_layers_are_the_mean_of_the_layers() -> None:
    student, teacher = states(8, 0), states(8, 1)

    def only(outputs: SimpleNamespace, layer: int) -> SimpleNamespace:
        return SimpleNamespace(**{name: (x[layer],) for name, x in vars(outputs).items()})

    last = AttentionRelationsLoss()
    alone = [last(only(student, n), only(teacher, n), BATCH) for n in range(2)]
    everywhere = AttentionRelationsLoss(layers="all")(student, teacher, BATCH)
    torch.testing.assert_close(everywhere, (alone[0] + alone[1]) / 2, rtol=1e-12, atol=0)
    torch.testing.assert_close(last(student, teacher, BATCH), alone[1], rtol=0, atol=0)


def test_the_stacks_and_the_relations_add_up() -> None:
    student, teacher = states(8, 0), states(8, 1)
    off = dict.fromkeys(KINDS, 0.0)
    parts = [
        AttentionRelationsLoss(encoder=e, decoder=not e, **(off | {kind: 1.0}))
        for e in (True, False)
        for kind in KINDS
    ]
    total = torch.stack([part(student, teacher, BATCH) for part in parts]).sum()
    torch.testing.assert_close(
        AttentionRelationsLoss()(student, teacher, BATCH), total, rtol=1e-12, atol=0
    )


def test_what_has_no_weight_is_not_recorded() -> None:
    assert AttentionRelationsLoss().requires == {"query_states", "key_states", "value_states"}
    assert AttentionRelationsLoss(query=0.0).requires == {"key_states", "value_states"}


def test_relation_heads_must_divide_both_widths() -> None:
    loss = AttentionRelationsLoss(relation_heads=4)
    loss.bind(Widths(hidden=7, attention=8), Widths(hidden=5, attention=12))
    for student, teacher in ((6, 8), (8, 6)):
        with pytest.raises(ValueError, match=r"relation_heads=4 .* write a divisor of 2$"):
            loss.bind(Widths(8, student), Widths(8, teacher))
        with pytest.raises(ValueError, match="relation_heads=4"):
            loss(states(student, 0), states(teacher, 1), BATCH)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"encoder": False, "decoder": False}, "switch one on"),
        ({"query": 0, "key": 0, "value": 0}, "give one a weight"),
        ({"query": -1.0}, "query=-1.0"),
        ({"key": float("nan")}, "key=nan"),
        ({"value": "much"}, "value=much"),
        ({"relation_heads": 0}, "relation_heads=0"),
        ({"layers": "first"}, "write last or all"),
    ],
)
def test_bad_options_raise(options: dict, message: str) -> None:
    build: Callable = AttentionRelationsLoss
    with pytest.raises(ValueError, match=message):
        build(**options)
