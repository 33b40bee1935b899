"""Values of the losses of the other methods, against their formulas and against each other."""

import math
from collections.abc import Callable
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from transformers.modeling_outputs import Seq2SeqLMOutput

from dq_lightning.distillation.attention_kl import FLOOR, AttentionKLLoss
from dq_lightning.distillation.attention_mse import AttentionMSELoss, centred_scores
from dq_lightning.distillation.contrastive import ContrastiveLoss
from dq_lightning.distillation.hidden_cosine import HiddenCosineLoss
from dq_lightning.distillation.hidden_state_mse import HiddenStateMSELoss
from dq_lightning.distillation.last_encoder_mse import LastEncoderMSELoss
from dq_lightning.distillation.logits_kl import LogitsKLLoss
from dq_lightning.distillation.logits_mse import LogitsMSELoss
from dq_lightning.distillation.soft_cross_entropy import SoftCrossEntropyLoss
from dq_lightning.distillation.top_k_kl import TopKKLLoss

# Two source tokens and a padding one; two target tokens and a padding one.
BATCH = {"attention_mask": torch.tensor([[1, 1, 0]]), "labels": torch.tensor([[0, 1, -100]])}


def states(*rows: tuple[float, ...]) -> tuple[Tensor, Tensor]:
    """Embeddings of zeros and one layer."""
    layer = torch.tensor([rows])
    return torch.zeros_like(layer), layer


def test_attention_mse_on_scores_is_that_of_the_scores() -> None:
    """Up to a constant a row, which the softmax is blind to; masked keys have no part in it."""
    generator = torch.Generator().manual_seed(0)
    scores = [torch.randn(1, 2, 3, 4, generator=generator, dtype=torch.float64) for _ in range(2)]
    mask = torch.tensor([[1, 1, 1, 0]] * 3).bool().unsqueeze(0)
    maps = [s.masked_fill(~mask.unsqueeze(1), -torch.inf).softmax(-1) for s in scores]
    centred = [s[..., :3] - s[..., :3].mean(-1, keepdim=True) for s in scores]
    measured = [centred_scores(probabilities, mask) for probabilities in maps]
    for ours, expected in zip(measured, centred, strict=True):
        torch.testing.assert_close(ours[..., :3], expected, rtol=0, atol=1e-12)
        assert (ours[..., 3] == 0.0).all()
    batch = {"attention_mask": torch.tensor([[1, 1, 1, 0]]), "labels": torch.tensor([[5, 6, 7]])}
    loss = AttentionMSELoss(encoder=False, decoder=False, compare="scores")
    outputs = [Seq2SeqLMOutput(cross_attentions=(probabilities,)) for probabilities in maps]
    expected = (centred[0] - centred[1]).square().mean().item()
    assert loss(*outputs, batch).item() == pytest.approx(expected, rel=1e-12)
    with pytest.raises(ValueError, match="needs mask=real"):
        AttentionMSELoss(mask="none", compare="scores")
    with pytest.raises(ValueError, match="write probabilities or scores"):
        AttentionMSELoss(compare="logits")


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_soft_cross_entropy_is_kl_plus_entropy_with_the_same_gradient(
    make_sample: Callable, temperature: float
) -> None:
    sample = make_sample()
    soft, kl = (
        loss(temperature)(sample.student, sample.teacher, sample.batch)
        for loss in (SoftCrossEntropyLoss, LogitsKLLoss)
    )
    real = sample.teacher.logits.detach()[sample.batch["labels"] != -100] / temperature
    entropy = torch.distributions.Categorical(logits=real).entropy().mean()
    torch.testing.assert_close(soft, kl + temperature**2 * entropy, rtol=1e-12, atol=0)
    gradients = [torch.autograd.grad(loss, sample.student.logits)[0] for loss in (soft, kl)]
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-15)


def test_top_k_kl_by_hand() -> None:
    student = SimpleNamespace(logits=torch.tensor([[[0.5, 0.2, 0.2, 0.1]] * 3]).log())
    teacher = SimpleNamespace(logits=torch.tensor([[[0.2, 0.6, 0.1, 0.1]] * 3]).log())
    one = 0.6 * math.log(0.6 / 0.2) + 0.4 * math.log(0.4 / 0.8)
    two = 0.6 * math.log(0.6 / 0.2) + 0.2 * math.log(0.2 / 0.5) + 0.2 * math.log(0.2 / 0.3)
    assert TopKKLLoss(k=1)(student, teacher, BATCH).item() == pytest.approx(one)
    assert TopKKLLoss(k=2)(student, teacher, BATCH).item() == pytest.approx(two)


def test_top_k_kl_grows_with_k_to_the_full_divergence(make_sample: Callable) -> None:
    sample = make_sample()
    arguments = (sample.student, sample.teacher, sample.batch)
    values = [TopKKLLoss(k)(*arguments).item() for k in (1, 2, 4, 6, 7, 100)]
    full = LogitsKLLoss()(*arguments).item()
    assert all(low <= high + 1e-12 for low, high in pairwise(values))
    assert values[3:] == pytest.approx([full] * 3, rel=1e-12)


def test_attention_kl_by_hand() -> None:
    quarter, half = [0.25, 0.75, 0.0], [0.5, 0.5, 0.0]
    student = SimpleNamespace(encoder_attentions=(torch.tensor([[[half, half, half]]]),))
    teacher = SimpleNamespace(encoder_attentions=(torch.tensor([[[quarter, half, quarter]]]),))
    expected = (0.25 * math.log(0.25 / 0.5) + 0.75 * math.log(0.75 / 0.5)) / 2
    loss = AttentionKLLoss(decoder=False, cross=False)
    assert loss(student, teacher, BATCH).item() == pytest.approx(expected)


def test_attention_kl_stays_finite_where_a_probability_is_zero() -> None:
    zero = torch.tensor([[[[1.0, 0.0, 0.0]] * 3]], requires_grad=True)
    student = SimpleNamespace(encoder_attentions=(zero,))
    teacher = SimpleNamespace(encoder_attentions=(torch.tensor([[[[0.0, 1.0, 0.0]] * 3]]),))
    value = AttentionKLLoss(decoder=False, cross=False)(student, teacher, BATCH)
    value.backward()
    assert value.item() == pytest.approx(-math.log(FLOOR), rel=1e-5)
    assert zero.grad is not None and zero.grad.isfinite().all()


def test_hidden_cosine_by_hand() -> None:
    student = SimpleNamespace(encoder_hidden_states=states((2.0, 0.0), (0.0, 3.0), (9.0, 9.0)))
    teacher = SimpleNamespace(encoder_hidden_states=states((5.0, 0.0), (4.0, 4.0), (0.0, 1.0)))
    expected = (0 + 1 - math.sqrt(0.5)) / 2
    loss = HiddenCosineLoss(decoder=False)
    assert loss(student, teacher, BATCH).item() == pytest.approx(expected)


def test_contrastive_by_hand() -> None:
    student = SimpleNamespace(decoder_hidden_states=states((2.0, 0.0), (0.0, 1.0), (1.0, 1.0)))
    teacher = SimpleNamespace(decoder_hidden_states=states((1.0, 0.0), (3.0, 3.0), (1.0, 1.0)))
    half = math.sqrt(0.5)
    first = math.log(math.exp(1 / 0.5) + math.exp(half / 0.5)) - 1 / 0.5
    second = math.log(1 + math.exp(half / 0.5)) - half / 0.5
    value = ContrastiveLoss(temperature=0.5)(student, teacher, BATCH)
    assert value.item() == pytest.approx((first + second) / 2)


def test_a_target_of_one_token_has_no_contrast(make_sample: Callable) -> None:
    sample = make_sample(targets=(1, 1))
    assert ContrastiveLoss()(sample.student, sample.teacher, sample.batch).item() == 0.0


def test_mask_none_is_the_plain_mean(make_sample: Callable) -> None:
    sample = make_sample()
    pair, batch = (sample.student, sample.teacher), sample.batch

    def plain(name: str) -> Tensor:
        layers = zip(*(getattr(outputs, name) for outputs in pair), strict=True)
        return torch.stack([(s - t).square().mean() for s, t in layers]).sum()

    stacks = ("encoder", "decoder")
    torch.testing.assert_close(
        LogitsMSELoss(mask="none")(*pair, batch), (pair[0].logits - pair[1].logits).square().mean()
    )
    torch.testing.assert_close(
        HiddenStateMSELoss(mask="none")(*pair, batch),
        plain("encoder_hidden_states") + plain("decoder_hidden_states"),
    )
    torch.testing.assert_close(
        AttentionMSELoss(mask="none")(*pair, batch),
        sum(plain(f"{stack}_attentions") for stack in (*stacks, "cross")),
    )


def test_last_encoder_by_hand() -> None:
    batch = {"attention_mask": torch.tensor([[1, 1], [1, 0]])}
    layer = torch.tensor([[[1.0], [2.0]], [[3.0], [4.0]]])
    student = SimpleNamespace(encoder_hidden_states=(layer, layer))
    teacher = SimpleNamespace(encoder_hidden_states=(layer, torch.zeros(2, 2, 1)))

    def value(**options: str) -> float:
        return LastEncoderMSELoss(**options)(student, teacher, batch).item()

    assert value() == pytest.approx((1 + 4 + 9) / 3)
    assert value(reduction_over_batch="sum") == pytest.approx((1 + 4) / 2 + 9)
    assert value(mask="none") == pytest.approx((1 + 4 + 9 + 16) / 4)
    assert value(mask="none", reduction_over_batch="sum") == pytest.approx(5 / 2 + 25 / 2)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: SoftCrossEntropyLoss(0.0), "temperature=0.0"),
        (lambda: TopKKLLoss(k=0), "k=0"),
        (lambda: TopKKLLoss(temperature=-1.0), "temperature=-1.0"),
        (lambda: AttentionKLLoss(False, False, False), "switch one on"),
        (lambda: HiddenCosineLoss(False, False), "switch one on"),
        (lambda: ContrastiveLoss(0.0), "temperature=0.0"),
        (lambda: LastEncoderMSELoss(reduction_over_batch="max"), "write mean or sum"),
        (lambda: LogitsMSELoss(mask="all"), "write real"),
    ],
)
def test_bad_options_raise(build: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()
