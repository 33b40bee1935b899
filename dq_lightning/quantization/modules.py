"""Linear and embedding layers over one fake-quantized Parameter, which may have several owners."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import Self

from dq_lightning.quantization.fake_quantizer import FakeQuantizer


class ParameterQuantizer(nn.Module):
    """One quantizer of one Parameter, and the memo of its last result.

    Without gradients every result is kept until the Parameter changes, so generation does not
    quantize again at each token. With gradients only a `shared` Parameter (the tied embedding
    and head) is kept, until `forget` is called: at the start of each forward of the whole model.
    strength: share of the rounding in training, w + strength (q(w) - w); evaluation rounds fully.
    """

    strength: float = 1.0

    def __init__(self, quantizer: FakeQuantizer, *, shared: bool = False) -> None:
        super().__init__()
        self.quantizer = quantizer
        self.shared = shared
        self._key: tuple[Any, ...] | None = None
        self._result: Tensor | None = None

    def forward(self, parameter: Float[Tensor, "rows columns"]) -> Float[Tensor, "rows columns"]:
        """Quantize the Parameter, or give the result for its present values again."""
        needs_graph = parameter.requires_grad and torch.is_grad_enabled()
        if not self.quantizer.enabled or parameter.is_inference():
            return self.quantize(parameter)
        if needs_graph and not self.shared:
            self.forget()
            return self.quantize(parameter)
        key = self._state_of(parameter, needs_graph)
        result = self._result
        if result is None or self._key != key:
            result = self.quantize(parameter)
            self._key, self._result = key, result
        return result

    def quantize(self, values: Float[Tensor, "*rows columns"]) -> Float[Tensor, "*rows columns"]:
        """Fake-quantize the Parameter, or rows of it, without the memo."""
        quantized = self.quantizer(values)
        if self.strength == 1.0 or not self.training:
            return quantized
        return torch.lerp(values, quantized, self.strength)

    def _state_of(self, parameter: Tensor, needs_graph: bool) -> tuple[Any, ...]:
        versions = tuple(own._version for own in self.quantizer.parameters())
        place = (parameter.data_ptr(), parameter.device, parameter.dtype)
        return needs_graph, parameter._version, versions, place

    def forget(self) -> None:
        """Drop the memo."""
        self._key = self._result = None

    def train(self, mode: bool = True) -> Self:
        """Drop the memo too: edits through `.data` do not count as a new version."""
        self.forget()
        return super().train(mode)

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        self.forget()  # model.to(...) replaces the Parameter's data
        return super()._apply(fn, recurse)

    def __getstate__(self) -> dict[str, Any]:
        # Copies and pickles start without a memo: a tensor inside a graph cannot be copied.
        return {**self.__dict__, "_key": None, "_result": None}


def forget_quantized_parameters(model: nn.Module, _args: Any = None) -> None:
    """Drop every memo of a graph (a forward pre-hook of the whole model).

    Each forward gets its own graph, so gradient accumulation never walks one twice.
    """
    if not torch.is_grad_enabled():
        return
    for module in model.modules():
        if isinstance(module, ParameterQuantizer):
            module.forget()


def _take_over(module: nn.Module, replacement: nn.Module) -> None:
    # The replacement owns the same Parameters, hooks and flags: nothing is copied, so ties,
    # meta tensors and handles of registered hooks survive.
    replacement.__dict__.update(module.__dict__)


class FakeQuantizedLinear(nn.Linear):
    """A linear layer y = q_a(x) q_w(W)^T + b over the Parameters of the layer that it replaces."""

    weight_quantizer: ParameterQuantizer | None
    input_quantizer: FakeQuantizer | None

    @classmethod
    def from_linear(
        cls,
        linear: nn.Linear,
        weight_quantizer: ParameterQuantizer | None,
        input_quantizer: FakeQuantizer | None,
    ) -> Self:
        """Replace a linear layer; None leaves its weight or its input in full precision."""
        replacement = cls.__new__(cls)
        _take_over(linear, replacement)
        replacement.weight_quantizer = weight_quantizer
        replacement.input_quantizer = input_quantizer
        return replacement

    def forward(self, input: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch out"]:
        """Multiply the quantized input by the quantized weight; the bias is full precision.

        It is added to the finished product, as after a product of integers and as DQ-BART's
        released code does: the last bit decides the ties of the next grid.
        """
        x = input if self.input_quantizer is None else self.input_quantizer(input)
        quantizer, bias = self.weight_quantizer, self.bias
        weight = self.weight if quantizer is None else quantizer(self.weight)
        if bias is None or x is input or weight is self.weight:  # pyright: ignore
            return F.linear(x, weight, bias)
        return F.linear(x, weight).add_(bias)


class FakeQuantizedEmbedding(nn.Embedding):
    """A token embedding e = embed_scale q(W)[ids] over the Parameter of the one it replaces.

    gather_first: look rows up, then quantize them. The same values where each row has its own
    scale, and much cheaper, unless the head needs the whole quantized matrix anyway.
    """

    weight_quantizer: ParameterQuantizer
    embed_scale: float | None
    gather_first: bool

    @classmethod
    def from_embedding(
        cls,
        embedding: nn.Embedding,
        weight_quantizer: ParameterQuantizer,
        *,
        gather_first: bool = False,
    ) -> Self:
        """Replace an embedding and carry its `embed_scale` (BART multiplies after the lookup)."""
        replacement = cls.__new__(cls)
        _take_over(embedding, replacement)
        replacement.embed_scale = getattr(embedding, "embed_scale", None)
        replacement.weight_quantizer = weight_quantizer
        replacement.gather_first = gather_first
        return replacement

    def forward(self, input: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch width"]:
        """Look quantized rows up."""
        if self.gather_first:
            rows = self.weight_quantizer.quantize(super().forward(input))
        else:
            weight = self.weight_quantizer(self.weight)
            rows = F.embedding(input, weight, self.padding_idx)
        return rows if self.embed_scale is None else rows * self.embed_scale
