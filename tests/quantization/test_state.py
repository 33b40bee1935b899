"""Learned quantizers in a prepared model: their start, their state, their reload."""

import copy
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from dq_lightning.models.family import ModelFamily
from dq_lightning.quantization.dynamic_scaling import DynamicScalingQuantizer
from dq_lightning.quantization.fake_quantizer import FakeQuantizer
from dq_lightning.quantization.learned_scale import LearnedScaleQuantizer
from dq_lightning.quantization.lsq import LsqQuantizer
from dq_lightning.quantization.lsq_plus import LsqPlusQuantizer
from dq_lightning.quantization.per_group import PerGroupQuantizer
from dq_lightning.quantization.prepare import prepare
from dq_lightning.quantization.recipe import QuantizationRecipe
from dq_lightning.quantization.state import (
    load_quantizer_state,
    quantizer_state,
    weights_alone,
)
from dq_lightning.quantization.stretched import StretchedQuantizer

Built = tuple[Callable[[], PreTrainedModel], ModelFamily]
Batch = dict[str, Tensor]
Kind = Callable[..., FakeQuantizer]
PER_GROUP = partial(
    PerGroupQuantizer, quantizer=partial(LsqQuantizer, granularity="per_row"), group_size=20
)
WEIGHTS: dict[str, Kind] = {
    "lsq per_tensor": LsqQuantizer,
    "lsq per_row": partial(LsqQuantizer, granularity="per_row"),
    "lsq+": partial(LsqPlusQuantizer, granularity="per_row"),
    "stretched": StretchedQuantizer,
    "lsq per_group": PER_GROUP,
    "dynamic scaling": DynamicScalingQuantizer,
}
every = pytest.mark.parametrize("kind", WEIGHTS.values(), ids=WEIGHTS)


def learned(kind: Kind, **changes: object) -> QuantizationRecipe:
    sites = {
        "weight": partial(kind, bits=3),
        "embedding": partial(kind, bits=3),
        "activation": partial(LsqPlusQuantizer, bits=8, activation=True),
        "attention": partial(LsqQuantizer, bits=8, activation=True),
    }
    return QuantizationRecipe(**{**sites, **changes})  # pyright: ignore[reportArgumentType]


def train(model: nn.Module, batch: Batch, steps: int) -> torch.optim.Optimizer:
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    model.train()
    torch.manual_seed(1)
    for _ in range(steps):
        optimizer.zero_grad()
        model(**batch).logits.square().mean().backward()
        optimizer.step()
    model.eval()
    return optimizer


@torch.no_grad()
def logits(model: nn.Module, batch: Batch) -> Tensor:
    return model(**batch).logits


@every
def test_scales_exist_before_the_optimizer_and_learn(built: Built, batch: Batch, kind: Kind):
    build, family = built
    model, again = build(), build()
    report = prepare(model, learned(kind), family)
    prepare(again, learned(kind), family)
    state, expected = quantizer_state(model), quantizer_state(again)
    assert report.swapped and state and all(torch.equal(state[n], expected[n]) for n in state)
    flags = [f for n, f in state.items() if "weight" in n and n.endswith("initialized")]
    assert all(flags)  # from the weights themselves, before any batch
    parameters = {name: (p, p.detach().clone()) for name, p in model.named_parameters()}
    train(model, batch, 2)
    after = dict(model.named_parameters())
    assert all(after[name] is p for name, (p, _) in parameters.items())
    scales = {n: before for n, (_, before) in parameters.items() if n.endswith(("scale", "gamma"))}
    assert scales and not any(torch.equal(after[n], before) for n, before in scales.items())


@every
def test_a_reloaded_student_is_the_same(built: Built, batch: Batch, kind: Kind):
    build, family = built
    model = build()
    plain_keys = model.state_dict().keys()
    prepare(model, learned(kind), family)
    train(model, batch, 2)
    weights, state = weights_alone(model), quantizer_state(model)
    assert weights.keys() == plain_keys
    reloaded = build()
    reloaded.load_state_dict(weights)
    prepare(reloaded, learned(kind), family)
    load_quantizer_state(reloaded, copy.deepcopy(state))
    assert torch.equal(logits(reloaded, batch), logits(model, batch))
    settings = {"max_new_tokens": 4, "do_sample": False}
    first, second = (m.generate(batch["input_ids"], **settings) for m in (model, reloaded))
    assert torch.equal(first, second)


def test_another_recipe_is_refused(built: Built, recipe: Callable[..., QuantizationRecipe]):
    build, family = built
    model, other = build(), build()
    prepare(model, learned(LsqQuantizer), family)
    prepare(other, recipe(), family)
    assert quantizer_state(other) == {}
    with pytest.raises(ValueError, match=r"model has no .*; prepare the model with the quant con"):
        load_quantizer_state(other, quantizer_state(model))
    with pytest.raises(ValueError, match="the saved quantizers lack"):
        load_quantizer_state(model, {})


def test_evaluation_keeps_nothing_before_training(built: Built, batch: Batch):
    build, family = built
    model, straight = build(), build()
    for each in (model, straight):
        prepare(each, learned(LsqQuantizer), family)
        each.eval()
    before = copy.deepcopy(quantizer_state(model))
    model.generate(batch["input_ids"], max_new_tokens=3)
    assert logits(model, batch).isfinite().all()
    after = quantizer_state(model)
    assert all(torch.equal(after[name], before[name]) for name in before)
    train(model, batch, 2)
    train(straight, batch, 2)
    assert torch.equal(logits(model, batch), logits(straight, batch))


@pytest.mark.parametrize("kind", [WEIGHTS["lsq per_group"], WEIGHTS["dynamic scaling"]])
def test_training_resumes_bit_for_bit(built: Built, batch: Batch, kind: Kind):
    build, family = built
    models = [build() for _ in range(2)]
    for model in models:
        prepare(model, learned(kind), family)
    train(models[0], batch, 1)
    models[1].load_state_dict(copy.deepcopy(models[0].state_dict()))
    for model in models:
        train(model, batch, 2)
    assert torch.equal(logits(models[0], batch), logits(models[1], batch))


def test_meta_models_get_their_shapes(built: Built):
    build, family = built
    with torch.device("meta"):
        model = build()
        prepare(model, learned(WEIGHTS["lsq per_row"]), family)
    real = build()
    prepare(real, learned(WEIGHTS["lsq per_row"]), family)
    shapes = {name: p.shape for name, p in real.named_parameters()}
    assert {name: p.shape for name, p in model.named_parameters()} == shapes


@pytest.mark.parametrize("site", ["activation", "attention"])
@pytest.mark.parametrize("kind", [WEIGHTS["lsq per_row"], PER_GROUP])
def test_a_scale_a_row_is_for_weights(site: str, kind: Kind):
    with pytest.raises(ValueError, match=rf"quant\.{site}\.quantizer: .*write quant\.{site}\.quan"):
        learned(LsqQuantizer, **{site: partial(kind, bits=8)})


def test_a_learned_table_is_quantized_whole(built: Built, batch: Batch):
    build, family = built
    tied, own = build(), build()
    prepare(tied, learned(WEIGHTS["lsq per_row"]), family)
    prepare(own, learned(WEIGHTS["lsq per_row"], head="fp"), family)
    for model in (tied, own):
        table = model.get_input_embeddings()
        ids = torch.tensor([[3, 7]])
        quantizer = next(q for q in table.modules() if isinstance(q, LearnedScaleQuantizer))
        assert quantizer.scale.shape == (40, 1)
        scale = getattr(table, "embed_scale", None) or 1.0
        assert torch.equal(table(ids), quantizer(table.weight)[ids] * scale)
