"""A quantizer as plain data, and the quantizer that such data describes."""

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache

from torch import Tensor

from dq_lightning.quantization.fake_quantizer import FakeQuantizer, Granularity

Plain = int | float | str | bool | None


@dataclass(frozen=True)
class QuantizerDescription:
    """Name of a quantizer class of this package, its constructor's arguments, its learned state."""

    kind: str
    arguments: Mapping[str, Plain]
    state: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])

    def build(self) -> FakeQuantizer:
        """The quantizer; ValueError for a class or arguments that this package does not have."""
        classes = quantizer_classes()
        if self.kind not in classes:
            raise ValueError(f"There is no quantizer {self.kind!r}; known: {', '.join(classes)}.")
        try:
            quantizer = classes[self.kind](**self.arguments)
        except TypeError as error:
            raise ValueError(f"{self.kind} cannot have {dict(self.arguments)}: {error}") from error
        try:
            quantizer.load_state_dict(dict(self.state))
        except RuntimeError as error:
            raise ValueError(f"{self.kind} cannot have this state: {error}") from error
        return quantizer


def describe(quantizer: FakeQuantizer) -> QuantizerDescription:
    """The data to build it again, bit for bit; ValueError where arguments are no plain values."""
    kind = type(quantizer).__name__
    arguments: dict[str, Plain] = {}
    for name in inspect.signature(type(quantizer)).parameters:
        value = getattr(quantizer, name)
        if isinstance(value, Tensor):  # learned: in the state
            value = None
        if isinstance(value, Granularity):
            value = value.value
        if not (value is None or isinstance(value, (int, float, str, bool))):
            raise ValueError(f"{kind} has an argument {name} that is no plain value.")
        arguments[name] = value
    state = {name: tensor.detach().clone() for name, tensor in quantizer.state_dict().items()}
    return QuantizerDescription(kind, arguments, state)


@cache
def quantizer_classes() -> dict[str, Callable[..., FakeQuantizer]]:
    """Every concrete quantizer of this package by its name: nothing else is ever built."""
    package = importlib.import_module("dq_lightning.quantization")
    for info in pkgutil.iter_modules(package.__path__):
        if info.name != "attention":  # needs transformers, has no quantizer
            importlib.import_module(f"{package.__name__}.{info.name}")
    return {kind.__name__: kind for kind in _below(FakeQuantizer) if not inspect.isabstract(kind)}


def _below(kind: type[FakeQuantizer]) -> list[type[FakeQuantizer]]:
    own = [sub for sub in kind.__subclasses__() if sub.__module__.startswith("dq_lightning.")]
    return [found for sub in own for found in (sub, *_below(sub))]
