"""Turns a model into its fake-quantized self, in place."""

from collections import defaultdict
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Protocol

from torch import Tensor, nn

from dq_lightning.quantization.attention import (
    attach_attention_quantizers,
    use_fake_quantized_attention,
)
from dq_lightning.quantization.fake_quantizer import FakeQuantizer, Granularity
from dq_lightning.quantization.modules import (
    FakeQuantizedEmbedding,
    FakeQuantizedLinear,
    ParameterQuantizer,
    forget_quantized_parameters,
)
from dq_lightning.quantization.recipe import QuantizationRecipe, QuantizerFactory
from dq_lightning.quantization.symmetric import SymmetricQuantizer


class PreparableFamily(Protocol):
    """What `prepare` reads of a `models.family.ModelFamily`."""

    @property
    def attention_types(self) -> tuple[type[nn.Module], ...]: ...
    @property
    def token_embedding_types(self) -> tuple[type[nn.Embedding], ...]: ...
    @property
    def keep_embeddings(self) -> tuple[str, ...]: ...
    @property
    def feed_forward_outputs(self) -> tuple[str, ...]: ...
    @property
    def head(self) -> str: ...


@dataclass(frozen=True)
class PreparationReport:
    """What `prepare` did: module name -> quantizers, or reason; `ties` share one quantizer."""

    swapped: dict[str, str] = field(default_factory=dict[str, str])
    skipped: dict[str, str] = field(default_factory=dict[str, str])
    excluded: tuple[str, ...] = ()
    ties: tuple[tuple[str, ...], ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Give plain JSON types."""
        return asdict(self)


def prepare(
    model: nn.Module, recipe: QuantizationRecipe, family: PreparableFamily
) -> PreparationReport:
    """Swap linear layers, token embeddings and attention by exact type, in place.

    The model's Parameters and their state-dict keys stay; learned scales add keys of their own
    (`state.py` tells them apart). Raises ValueError for an embedding class that the family does
    not know and for an exclude pattern that matches nothing.
    """
    if any(isinstance(module, ParameterQuantizer) for module in model.modules()):
        raise ValueError("The model is prepared already; prepare a freshly loaded one.")
    return _Preparation(model, recipe, family).run()


class _Preparation:
    def __init__(
        self, model: nn.Module, recipe: QuantizationRecipe, family: PreparableFamily
    ) -> None:
        self.model, self.recipe, self.family = model, recipe, family
        self.modules = dict(model.named_modules(remove_duplicate=False))
        self.swapped: dict[str, str] = {}
        self.skipped: dict[str, str] = {}
        self.replacements: dict[int, nn.Module] = {}
        self.tables: dict[int, ParameterQuantizer] = {}
        self.table_owners: dict[int, list[str]] = defaultdict(list)

    def run(self) -> PreparationReport:
        candidates = {name: module for name, module in self.modules.items() if self._fits(module)}
        excluded = self._excluded(candidates)
        for name, module in candidates.items():
            if name not in excluded:
                self._replace(name, module)
        if any(self.recipe.operands.values()):
            use_fake_quantized_attention(self.model)
        self.model.register_forward_pre_hook(forget_quantized_parameters)
        ties = tuple(tuple(names) for names in self.table_owners.values() if len(names) > 1)
        return PreparationReport(self.swapped, self.skipped, excluded, ties)

    def _fits(self, module: nn.Module) -> bool:
        is_attention = type(module) in self.family.attention_types
        return is_attention or type(module) is nn.Linear or isinstance(module, nn.Embedding)

    def _excluded(self, candidates: dict[str, nn.Module]) -> tuple[str, ...]:
        for pattern in self.recipe.exclude:
            if not any(fnmatchcase(name, pattern) for name in candidates):
                raise ValueError(
                    f"quant.exclude has {pattern!r}, which matches no linear layer, embedding or "
                    "attention of the model; write a module name such as "
                    f"{next(iter(candidates), 'lm_head')!r} or a pattern with *."
                )
        patterns = self.recipe.exclude
        return tuple(name for name in candidates if _matches(name, patterns))

    def _replace(self, name: str, module: nn.Module) -> None:
        if isinstance(module, nn.Embedding):
            self._replace_embedding(name, module)
        elif not isinstance(module, nn.Linear):
            self._attach_attention(name, module)
        elif name == self.family.head:
            self._replace_head(name, module)
        else:
            weight = _build(self.recipe.weight, module.weight)
            memo = None if weight is None else ParameterQuantizer(weight)
            second = _matches(name, self.family.feed_forward_outputs)
            inputs = self.recipe.feed_forward_input if second else self.recipe.activation
            self._replace_linear(name, module, memo, inputs)

    def _attach_attention(self, name: str, module: nn.Module) -> None:
        operands = self.recipe.operands
        if not any(operands.values()):
            self.skipped[name] = "no attention quantizer"
            return
        attach_attention_quantizers(module, operands)
        others, own = (_describe(operands[operand]) for operand in ("query", "probabilities"))
        self.swapped[name] = (
            f"query, key, value, probabilities: {others}"
            if own == others
            else f"query, key, value: {others}; probabilities: {own}"
        )

    def _replace_linear(
        self,
        name: str,
        module: nn.Linear,
        weight: ParameterQuantizer | None,
        activation: QuantizerFactory | None,
    ) -> None:
        inputs = _build(activation)
        if weight is None and inputs is None:
            self.skipped[name] = "no weight or activation quantizer"
            return
        described = "full precision" if weight is None else weight.quantizer
        self.swapped[name] = f"weight: {described}; input: {inputs or 'full precision'}"
        self._set(name, module, FakeQuantizedLinear.from_linear(module, weight, inputs))

    def _replace_head(self, name: str, module: nn.Linear) -> None:
        if self.recipe.head == "int8":
            rows = SymmetricQuantizer(8, Granularity.PER_ROW)
            self._replace_linear(name, module, ParameterQuantizer(rows), self.recipe.activation)
        elif self.recipe.head == "fp" or self.recipe.embedding is None:
            self.skipped[name] = "full-precision head"
        else:
            table = self._table(name, module.weight)
            self._replace_linear(name, module, table, self.recipe.activation)

    def _replace_embedding(self, name: str, module: nn.Embedding) -> None:
        if _matches(name, self.family.keep_embeddings):
            self.skipped[name] = "embedding kept in full precision by the model family"
        elif type(module) not in self.family.token_embedding_types:
            known = ", ".join(kind.__name__ for kind in self.family.token_embedding_types)
            raise ValueError(
                f"The embedding {name} is a {type(module).__name__}, which the model family does "
                f"not know ({known}); add it to token_embedding_types or keep_embeddings."
            )
        elif self.recipe.embedding is None:
            self.skipped[name] = "no embedding quantizer"
        else:
            table = self._table(name, module.weight)
            gather = table.quantizer.rows_stand_alone and not table.shared
            new = FakeQuantizedEmbedding.from_embedding(module, table, gather_first=gather)
            self.swapped[name] = f"weight: {table.quantizer}"
            self._set(name, module, new)

    def _table(self, name: str, weight: Tensor) -> ParameterQuantizer:
        """Give the vocabulary matrix's one quantizer; the head may share its whole result."""
        if id(weight) not in self.tables:
            quantizer = _build(self.recipe.embedding, weight)
            assert quantizer is not None
            head = self.modules.get(self.family.head)
            with_head = isinstance(head, nn.Linear) and head.weight is weight
            shared = with_head and self.recipe.head == "tied"
            shared = shared or not quantizer.rows_stand_alone
            self.tables[id(weight)] = ParameterQuantizer(quantizer, shared=shared)
        self.table_owners[id(weight)].append(name)
        return self.tables[id(weight)]

    def _set(self, name: str, module: nn.Module, replacement: nn.Module) -> None:
        # A module with several names stays one module.
        replacement = self.replacements.setdefault(id(module), replacement)
        self.model.set_submodule(name, replacement)


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _build(factory: QuantizerFactory | None, weight: Tensor | None = None) -> FakeQuantizer | None:
    quantizer = None if factory is None else factory()
    if quantizer is not None and weight is not None:
        quantizer.bind(weight)
    return quantizer


def _describe(factory: QuantizerFactory | None) -> str:
    return "full precision" if factory is None else str(factory())
