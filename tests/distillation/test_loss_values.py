"""Values computed by hand, by torch.nn.functional and by transformers."""

import math
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import BartConfig, BartForConditionalGeneration

from dq_lightning.distillation.attention_mse import AttentionMSELoss
from dq_lightning.distillation.cross_entropy import CrossEntropyLoss
from dq_lightning.distillation.hidden_state_mse import HiddenStateMSELoss
from dq_lightning.distillation.logits_kl import LogitsKLLoss
from dq_lightning.distillation.logits_mse import LogitsMSELoss

# Two source tokens and a padding one; two target tokens and a padding one.
BATCH = {"attention_mask": torch.tensor([[1, 1, 0]]), "labels": torch.tensor([[0, 1, -100]])}


def column(*values: float) -> Tensor:
    """Return one row of one-feature states."""
    return torch.tensor(values).view(1, -1, 1)


def logits(*tokens: tuple[float, ...]) -> SimpleNamespace:
    return SimpleNamespace(logits=torch.tensor([tokens]))


def test_cross_entropy_by_hand() -> None:
    student = logits((0.0, 0.0), (0.0, math.log(3.0)), (9.0, 9.0))
    expected = (math.log(2.0) + math.log(4.0 / 3.0)) / 2
    assert CrossEntropyLoss()(student, None, BATCH).item() == pytest.approx(expected)


def test_label_smoothing_by_hand() -> None:
    student = logits((0.0, math.log(3.0)), (0.0, math.log(3.0)), (9.0, 9.0))
    # Smoothed by 0.2, a label has 0.9 and the other token 0.1.
    nll = [math.log(4.0), math.log(4.0 / 3.0)]
    expected = (0.9 * nll[0] + 0.1 * nll[1] + 0.9 * nll[1] + 0.1 * nll[0]) / 2
    assert CrossEntropyLoss(0.2)(student, None, BATCH).item() == pytest.approx(expected)


def test_logits_mse_by_hand() -> None:
    student = logits((1.0, 2.0), (0.0, 0.0), (5.0, 5.0))
    teacher = logits((1.0, 0.0), (3.0, 1.0), (0.0, 0.0))
    # Squared differences 0, 4 and 9, 1: their mean is 3.5.
    assert LogitsMSELoss()(student, teacher, BATCH).item() == 3.5


def test_logits_kl_by_hand() -> None:
    student = logits((0.0, 0.0), (0.0, math.log(3.0)), (5.0, 1.0))
    teacher = logits((0.0, math.log(3.0)), (0.0, math.log(3.0)), (0.0, 0.0))
    expected = (0.25 * math.log(0.25 / 0.5) + 0.75 * math.log(0.75 / 0.5)) / 2
    assert LogitsKLLoss()(student, teacher, BATCH).item() == pytest.approx(expected)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_logits_kl_is_the_textbook_formula(make_sample: Callable, temperature: float) -> None:
    sample = make_sample()
    real = sample.batch["labels"] != -100
    student, teacher = (
        outputs.logits.detach()[real] / temperature for outputs in (sample.student, sample.teacher)
    )
    expected = temperature**2 * F.kl_div(
        student.log_softmax(-1), teacher.softmax(-1), reduction="batchmean"
    )
    value = LogitsKLLoss(temperature)(sample.student, sample.teacher, sample.batch)
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=0)


def test_hidden_states_by_hand() -> None:
    student = SimpleNamespace(
        encoder_hidden_states=(column(1.0, 2.0, 9.0), column(0.0, 0.0, 9.0)),
        decoder_hidden_states=(column(0.0, 0.0, 9.0), column(4.0, 2.0, 9.0)),
    )
    teacher = SimpleNamespace(
        encoder_hidden_states=(column(0.0, 0.0, 0.0), column(1.0, 1.0, 0.0)),
        decoder_hidden_states=(column(0.0, 0.0, 0.0), column(0.0, 0.0, 0.0)),
    )
    # Encoder: (1 + 4) / 2 and (1 + 1) / 2; decoder: 0 and (16 + 4) / 2.
    assert HiddenStateMSELoss()(student, teacher, BATCH).item() == 2.5 + 1 + 0 + 10
    assert HiddenStateMSELoss(decoder=False)(student, teacher, BATCH).item() == 3.5
    mean = HiddenStateMSELoss(reduction_over_layers="mean")
    assert mean(student, teacher, BATCH).item() == 3.5 / 2 + 10 / 2


def test_attentions_by_hand() -> None:
    ones, zeros = torch.ones(1, 2, 3, 3), torch.zeros(1, 2, 3, 3)
    ramp = torch.arange(9.0).view(1, 1, 3, 3).expand(1, 2, 3, 3)
    names = ("encoder_attentions", "decoder_attentions", "cross_attentions")
    student = SimpleNamespace(**dict.fromkeys(names, (ones, ramp)))
    teacher = SimpleNamespace(**dict.fromkeys(names, (zeros, zeros)))

    def value(**switches: bool) -> float:
        chosen = {"encoder": False, "decoder": False, "cross": False, **switches}
        return AttentionMSELoss(**chosen)(student, teacher, BATCH).item()

    # Real pairs of the ramp: 0 1 3 4 where all keys count, 0 3 4 where a key must be causal.
    assert value(encoder=True) == value(cross=True) == 1 + (0 + 1 + 9 + 16) / 4
    assert value(decoder=True) == pytest.approx(1 + (0 + 9 + 16) / 3)
    total = 2 * value(encoder=True) + value(decoder=True)
    assert AttentionMSELoss()(student, teacher, BATCH).item() == pytest.approx(total)
    mean = AttentionMSELoss(reduction_over_layers="mean")
    assert mean(student, teacher, BATCH).item() == pytest.approx(total / 2)


@pytest.fixture(scope="module")
def bart() -> BartForConditionalGeneration:
    torch.manual_seed(0)
    return BartForConditionalGeneration(
        BartConfig(
            vocab_size=20,
            d_model=8,
            encoder_layers=2,
            decoder_layers=1,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=8,
            decoder_ffn_dim=8,
            max_position_embeddings=16,
        )
    ).eval()


def bart_batch() -> dict[str, Tensor]:
    tokens = torch.randint(4, 20, (3, 6), generator=torch.Generator().manual_seed(1))
    mask = torch.tensor([[1] * 6, [1] * 4 + [0] * 2, [1] * 5 + [0]])
    labels = tokens.masked_fill(mask == 0, -100)
    return {"input_ids": tokens, "attention_mask": mask, "labels": labels}


def test_cross_entropy_is_the_loss_of_transformers(bart: BartForConditionalGeneration) -> None:
    batch = bart_batch()
    output = bart(**batch)
    torch.testing.assert_close(CrossEntropyLoss()(output, None, batch), output.loss)


def test_every_loss_reads_the_outputs_of_transformers(bart: BartForConditionalGeneration) -> None:
    batch = bart_batch()
    bart.set_attn_implementation("eager")
    record = {"output_attentions": True, "output_hidden_states": True}
    output = bart(**batch, **record)
    for loss in (LogitsMSELoss(), LogitsKLLoss(), AttentionMSELoss(), HiddenStateMSELoss()):
        assert loss(output, output, batch).item() == 0.0


def test_attentions_that_sdpa_does_not_record_raise(bart: BartForConditionalGeneration) -> None:
    batch = bart_batch()
    bart.set_attn_implementation("sdpa")
    output = bart(**batch, output_attentions=True)
    with pytest.raises(ValueError, match="eager, not sdpa"):
        AttentionMSELoss()(output, output, batch)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: CrossEntropyLoss(1.0), "label_smoothing=1.0"),
        (lambda: LogitsKLLoss(0.0), "temperature=0.0"),
        (lambda: HiddenStateMSELoss(encoder=False, decoder=False), "switch one on"),
        (lambda: AttentionMSELoss(False, False, False), "switch one on"),
        (lambda: AttentionMSELoss(reduction_over_layers="max"), "write sum or mean"),
    ],
)
def test_bad_options_raise(build: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()
