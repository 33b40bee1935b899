"""Our attention against transformers' eager attention."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from dq_lightning.models.family import ModelFamily
from dq_lightning.quantization.attention import (
    attach_attention_quantizers,
    fake_quantized_attention,
    use_fake_quantized_attention,
)
from dq_lightning.quantization.symmetric import SymmetricQuantizer

Built = tuple[Callable[[], PreTrainedModel], ModelFamily]


def test_without_quantizers_it_is_eager_attention(built: Built, batch: dict[str, Tensor]) -> None:
    model = built[0]()
    options = {"output_attentions": True, "output_hidden_states": True}
    model.set_attn_implementation("eager")
    with torch.no_grad():
        expected = model(**batch, **options)
        use_fake_quantized_attention(model)
        result = model(**batch, **options)
    assert torch.equal(result.logits, expected.logits)
    for name in ("encoder_attentions", "decoder_attentions", "cross_attentions"):
        assert len(result[name]) == 2
        for ours, theirs in zip(result[name], expected[name], strict=True):
            assert torch.equal(ours, theirs)
    assert result.encoder_attentions[0][1, :, :, 4:].abs().max() == 0


def test_gradients_equal_eager_attention(built: Built, batch: dict[str, Tensor]) -> None:
    results = []
    for name in ("eager", "fake_quantized"):
        model = built[0]()
        model.set_attn_implementation(name)
        model(**batch).logits.square().mean().backward()
        results.append([parameter.grad for parameter in model.parameters()])
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(*results, strict=True))


def test_operands_are_quantized_where_the_paper_does() -> None:
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, 3, 4, 5) for _ in range(3))
    module = nn.Module().train()

    def quantizer() -> SymmetricQuantizer:
        return SymmetricQuantizer(4, "per_tensor", clip=1.0)

    names = ("query", "key", "value", "probabilities")
    attach_attention_quantizers(module, dict.fromkeys(names, quantizer))
    assert not module.state_dict()
    q = quantizer()
    torch.manual_seed(1)
    output, probabilities = fake_quantized_attention(
        module, query, key, value, None, scaling=0.3, dropout=0.5
    )
    expected = torch.softmax(q(query * 0.3) @ q(key).transpose(2, 3), -1)
    assert torch.equal(probabilities, expected)
    torch.manual_seed(1)
    dropped = nn.functional.dropout(expected, 0.5)
    assert torch.equal(output, (q(dropped) @ q(value)).transpose(1, 2))


def test_an_operand_may_stay_in_full_precision() -> None:
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, 3, 4, 5) for _ in range(3))
    module, plain = nn.Module(), nn.Module()
    q = SymmetricQuantizer(4, "per_tensor")
    attach_attention_quantizers(
        module, {"query": None, "key": None, "value": None, "probabilities": lambda: q}
    )
    _, expected = fake_quantized_attention(plain, query, key, value, None, scaling=0.3)
    output, probabilities = fake_quantized_attention(module, query, key, value, None, scaling=0.3)
    assert torch.equal(probabilities, expected)
    assert torch.equal(output, (q(expected) @ value).transpose(1, 2))
