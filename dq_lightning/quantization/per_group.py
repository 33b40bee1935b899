"""One scale for each group of consecutive values of a row."""

from collections.abc import Callable
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from dq_lightning.quantization.fake_quantizer import FakeQuantizer, Granularity, QuantizedTensor


class PerGroupQuantizer(FakeQuantizer):
    """Applies a quantizer to each `group_size` consecutive values of the last dimension.

    The last group of a row is shorter where group_size does not divide it, and has a quantizer of
    its own, for scales that are learned (of weights, one for each group). The finer grid costs
    16 / group_size bits a value for float16 scales (Q-BERT, Shen et al. 2020, arXiv 1909.05840,
    section 3.2). The inner quantizer's granularity is per_row: its rows are the groups.

    >>> from functools import partial
    >>> from dq_lightning.quantization.symmetric import SymmetricQuantizer
    >>> rows = partial(SymmetricQuantizer, granularity="per_row")
    >>> quantizer = PerGroupQuantizer(2, rows, group_size=2)
    >>> quantizer(torch.tensor([[1.0, -0.9, 0.1, 0.2, 7.0]]))
    tensor([[ 1.0000, -1.0000,  0.0000,  0.2000,  7.0000]])
    """

    granularities: ClassVar[tuple[Granularity, ...]] = (
        Granularity.PER_ROW,
        Granularity.PER_TOKEN,
    )

    def __init__(
        self,
        bits: int,
        quantizer: Callable[..., FakeQuantizer],
        group_size: int = 64,
        granularity: Granularity | str = Granularity.PER_ROW,
    ) -> None:
        if group_size < 1:
            raise ValueError(f"group_size={group_size!r} is no number of values; write 64 or so.")
        inner = quantizer(bits=bits)
        if inner.granularity.dim is None:
            raise ValueError(
                "A group's quantizer cannot have one scale a tensor; "
                "write quantizer.granularity=per_row."
            )
        super().__init__(bits, granularity, inner.clip)
        self.inner = inner
        self.last: FakeQuantizer | None = quantizer(bits=bits)
        self.group_size = group_size

    @property
    def num_levels(self) -> int:
        """The inner quantizer's, of each group."""
        return self.inner.num_levels

    @property
    def keeps_zero(self) -> bool:
        """Whatever the inner quantizer does."""
        return self.inner.keeps_zero

    @property
    def rows_stand_alone(self) -> bool:
        """Whatever the inner quantizer does."""
        return self.inner.rows_stand_alone

    @property
    def weights_only(self) -> bool:
        """Whatever the inner quantizer does."""
        return self.inner.weights_only

    def bind(self, parameter: Float[Tensor, "*shape"]) -> None:
        """Bind each inner quantizer to its groups; without shorter ones there is but one."""
        for quantizer, groups in self._groups(parameter):
            quantizer.bind(groups)
        if len(self._groups(parameter)) == 1:
            self.last = None

    def quantize(self, x: Float[Tensor, "*shape"]) -> QuantizedTensor:
        """Return the groups' codes in x's shape, their scales repeated for each value."""
        parts = [quantizer.quantize(groups) for quantizer, groups in self._groups(x)]

        def joined(name: str) -> Tensor | None:
            tensors = [getattr(part, name) for part in parts]
            if tensors[0] is None:
                return None
            pairs = zip(tensors, parts, strict=True)
            return torch.cat([t.expand_as(part.codes).flatten(-2) for t, part in pairs], -1)

        codes, scale = joined("codes"), joined("scale")
        assert codes is not None and scale is not None
        extras = (joined(name) for name in ("zero_point", "inverse_scale", "zero_code"))
        return QuantizedTensor(codes, scale, *extras)

    def forward(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Fake-quantize each group, with the inner quantizer's gradients."""
        if not self.enabled:
            return x
        return torch.cat([quantizer(g).flatten(-2) for quantizer, g in self._groups(x)], -1)

    def _groups(self, x: Tensor) -> list[tuple[FakeQuantizer, Tensor]]:
        """Cut x into its whole groups and the shorter last ones, (..., groups, group_size) each."""
        assert self.group_size is not None
        width = x.shape[-1]
        size = min(self.group_size, width)
        whole = width // size * size
        cuts = [(self.inner, x[..., :whole].unflatten(-1, (-1, size)))]
        if whole == width:
            return cuts
        assert self.last is not None, "bound to a Parameter of another width"
        return [*cuts, (self.last, x[..., whole:].unsqueeze(-2))]

    def extra_repr(self) -> str:
        """Describe the quantizer in reports."""
        return f"{super().extra_repr()}, group_size={self.group_size}"
