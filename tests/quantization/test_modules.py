"""One quantization of each Parameter: when it is kept and when it is made again."""

import copy
import pickle
from collections import Counter
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from dq_lightning.models.family import ModelFamily
from dq_lightning.quantization.fake_quantizer import QuantizedTensor
from dq_lightning.quantization.modules import ParameterQuantizer
from dq_lightning.quantization.prepare import prepare
from dq_lightning.quantization.recipe import QuantizationRecipe
from dq_lightning.quantization.symmetric import SymmetricQuantizer

Built = tuple[Callable[[], PreTrainedModel], ModelFamily]
Batch = dict[str, Tensor]


@pytest.fixture
def counted(
    built: Built, recipe: Callable[..., QuantizationRecipe], monkeypatch: pytest.MonkeyPatch
) -> tuple[PreTrainedModel, Counter[int]]:
    """A prepared model at 8-8-8, and how often each weight was quantized."""
    build, family = built
    model = build()
    calls: Counter[int] = Counter()
    pointers = {parameter.data_ptr() for parameter in model.parameters()}
    quantize = SymmetricQuantizer.quantize

    def counting(self: SymmetricQuantizer, x: Tensor) -> QuantizedTensor:
        if x.data_ptr() in pointers:
            calls[x.data_ptr()] += 1
        return quantize(self, x)

    monkeypatch.setattr(SymmetricQuantizer, "quantize", counting)
    weight = partial(SymmetricQuantizer, 8, "per_row", 2.5)
    prepare(model, recipe(weight=weight, embedding=weight), family)
    return model, calls


def gradients(model: PreTrainedModel) -> dict[str, Tensor]:
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def test_each_matrix_is_quantized_once_a_forward(
    counted: tuple[PreTrainedModel, Counter[int]], batch: Batch
) -> None:
    model, calls = counted
    model(**batch)
    assert len(calls) > 10 and set(calls.values()) == {1}
    model(**batch)
    assert set(calls.values()) == {2}


def test_generation_quantizes_once_until_the_weights_change(
    counted: tuple[PreTrainedModel, Counter[int]], batch: Batch
) -> None:
    model, calls = counted
    model.generate(batch["input_ids"], max_new_tokens=6, min_new_tokens=6)
    model.generate(batch["input_ids"], max_new_tokens=3)
    assert set(calls.values()) == {1}


@pytest.mark.parametrize("change", ["step", "fused step", "load", "data", "to"])
def test_changed_weights_are_quantized_again(
    counted: tuple[PreTrainedModel, Counter[int]], batch: Batch, change: str
) -> None:
    model, _ = counted
    with torch.no_grad():
        before = model(**batch).logits
    if "step" in change:
        model(**batch).logits.square().mean().backward()
        torch.optim.AdamW(model.parameters(), lr=0.1, fused=change.startswith("fused")).step()
    elif change == "load":
        model.load_state_dict({n: x * 1.5 for n, x in model.state_dict().items()})
    elif change == "data":
        for parameter in model.parameters():
            parameter.data.mul_(1.5)
        model.train().eval()
    else:
        model.bfloat16().float()
    with torch.no_grad():
        after = model(**batch).logits
        fresh = copy.deepcopy(model)(**batch).logits
    assert not torch.equal(before, after)
    assert torch.equal(after, fresh)


def test_gradient_accumulation(counted: tuple[PreTrainedModel, Counter[int]], batch: Batch) -> None:
    model, _ = counted
    halves = [{n: x[rows] for n, x in batch.items()} for rows in (slice(0, 1), slice(1, 3))]
    for part in halves:
        model(**part).logits.square().sum().backward()
    accumulated = gradients(model)
    model.zero_grad()
    sum(model(**part).logits.square().sum() for part in halves).backward()
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(accumulated[name], gradient, rtol=1e-4, atol=1e-4)
    assert len(accumulated) == len(list(model.parameters()))


def test_tied_gradient_is_the_sum_of_its_uses(
    counted: tuple[PreTrainedModel, Counter[int]], batch: Batch
) -> None:
    model, _ = counted
    results = []
    for shared in (True, False):
        for module in model.modules():
            if isinstance(module, ParameterQuantizer):
                module.shared = shared
        model.zero_grad()
        model(**batch).logits.square().mean().backward()
        results.append(model.get_input_embeddings().weight.grad.clone())
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-7)


def test_copies_and_pickles_in_the_middle_of_a_graph(
    counted: tuple[PreTrainedModel, Counter[int]], batch: Batch
) -> None:
    model, _ = counted
    expected = model(**batch).logits
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(twin(**batch).logits, expected)
        twin.get_input_embeddings().weight.data.zero_()
    assert torch.equal(model(**batch).logits, expected)


def test_inference_mode_then_training(
    counted: tuple[PreTrainedModel, Counter[int]], batch: Batch
) -> None:
    model, _ = counted
    with torch.inference_mode():
        model(**batch)
    with torch.no_grad():
        model(**batch)
    model(**batch).logits.sum().backward()
    assert gradients(model)
