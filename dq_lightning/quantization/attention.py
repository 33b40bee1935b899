"""Attention with fake-quantized operands, for every model that uses transformers' interface."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask

from dq_lightning.quantization.fake_quantizer import FakeQuantizer
from dq_lightning.quantization.identity import IdentityQuantizer
from dq_lightning.quantization.recipe import QuantizerFactory

NAME = "fake_quantized"


def attach_attention_quantizers(
    attention: nn.Module, operands: Mapping[str, QuantizerFactory | None]
) -> None:
    """Give an attention module a fresh quantizer for query, key, value and probabilities.

    None leaves that operand in full precision.
    """
    fresh = {
        name: factory() if factory else IdentityQuantizer() for name, factory in operands.items()
    }
    attention.attention_quantizers = nn.ModuleDict(fresh)


def use_fake_quantized_attention(model: nn.Module) -> None:
    """Choose this file's attention for one model; other models keep theirs."""
    model.set_attn_implementation(NAME)  # pyright: ignore[reportCallIssue]


def fake_quantized_attention(
    module: nn.Module,
    query: Float[Tensor, "batch head query dim"],
    key: Float[Tensor, "batch head key dim"],
    value: Float[Tensor, "batch head key dim"],
    attention_mask: Tensor | None,
    *,
    scaling: float,
    dropout: float = 0.0,
    position_bias: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Float[Tensor, "batch query head dim"], Float[Tensor, "batch head query key"]]:
    """Attend with Q (after scaling), K, V and probabilities (after dropout) fake-quantized.

    softmax(q(Q s) q(K)^T + bias + mask), DQ-BART's sites (Li et al. 2022, section 2). Without
    attached quantizers it equals the eager attention bit for bit. Returns the context and the
    probabilities before dropout and quantization, which are what attention losses compare.
    """
    quantizers: Any = getattr(module, "attention_quantizers", None)
    if quantizers is not None and quantizers["query"].enabled:
        query, scaling = _quantized(quantizers["query"], query * scaling), 1.0
    if quantizers is not None:
        key, value = _quantized(quantizers["key"], key), _quantized(quantizers["value"], value)
    scores = torch.matmul(query, key.transpose(2, 3))
    if scaling != 1.0:  # unquantized: scale the scores as eager attention does, bit for bit
        scores = scores * scaling
    if position_bias is not None:
        scores = scores + position_bias
    if attention_mask is not None:
        scores = scores + attention_mask
    probabilities = nn.functional.softmax(scores, dim=-1)
    weights = nn.functional.dropout(probabilities, p=dropout, training=module.training)
    if quantizers is not None:
        weights = quantizers["probabilities"](weights)
    return torch.matmul(weights, value).transpose(1, 2).contiguous(), probabilities


def _quantized(quantizer: FakeQuantizer, operand: Tensor) -> Tensor:
    # Contiguous, which the product would copy it to anyway: one order of summation whatever the
    # layout was, because the last bit decides the ties of the next grid.
    return quantizer(operand).contiguous() if quantizer.enabled else operand


AttentionInterface.register(NAME, fake_quantized_attention)
# Without its mask a custom attention would silently attend to padding.
AttentionMaskInterface.register(NAME, eager_mask)
