"""Preparation keeps the model and quantizes what the recipe says."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from dq_lightning.models.family import ModelFamily
from dq_lightning.quantization.asymmetric import AsymmetricQuantizer
from dq_lightning.quantization.fake_quantizer import FakeQuantizer
from dq_lightning.quantization.identity import IdentityQuantizer
from dq_lightning.quantization.modules import FakeQuantizedEmbedding, FakeQuantizedLinear
from dq_lightning.quantization.prepare import prepare
from dq_lightning.quantization.recipe import QuantizationRecipe
from dq_lightning.quantization.symmetric import SymmetricQuantizer

Built = tuple[Callable[[], PreTrainedModel], ModelFamily]
Recipe = Callable[..., QuantizationRecipe]
Batch = dict[str, Tensor]


def logits(model: PreTrainedModel, batch: Batch) -> Tensor:
    with torch.no_grad():
        return model(**batch).logits


def test_disabled_quantizers_are_the_float_model(built: Built, recipe: Recipe, batch: Batch):
    build, family = built
    model = build()
    expected = logits(model, batch)
    prepare(model, recipe(), family)
    assert not torch.allclose(logits(model, batch), expected, atol=1e-3)
    for module in model.modules():
        if isinstance(module, FakeQuantizer):
            module.enabled = False
    assert torch.equal(logits(model, batch), expected)


@pytest.mark.parametrize("head", ["tied", "fp", "int8"])
def test_identity_recipe_is_the_float_model(built: Built, batch: Batch, head: Any):
    build, family = built
    model, factory = build(), IdentityQuantizer
    expected = logits(model, batch)
    prepare(model, QuantizationRecipe(factory, factory, factory, factory, head), family)
    exact = torch.equal(logits(model, batch), expected)
    assert exact or head == "int8"


def test_names_parameters_ties_and_hooks_survive(built: Built, recipe: Recipe, batch: Batch):
    build, family = built
    model = build()
    calls: list[nn.Module] = []
    model.get_submodule(family.head).register_forward_hook(lambda module, *_: calls.append(module))
    keys, parameters = list(model.state_dict()), dict(model.named_parameters())
    report = prepare(model, recipe(), family)
    assert list(model.state_dict()) == keys
    assert {name: id(p) for name, p in model.named_parameters()} == {
        name: id(p) for name, p in parameters.items()
    }
    logits(model, batch)
    assert [type(module) for module in calls] == [FakeQuantizedLinear]
    assert len(report.ties) == 1 and family.head in report.ties[0]
    assert json.loads(json.dumps(report.as_dict()))["swapped"].keys() == report.swapped.keys()
    left = [name for name, module in model.named_modules() if type(module) is nn.Linear]
    assert left == []
    assert all("kept" in reason for reason in report.skipped.values())


def test_second_feed_forward_matrices_and_probabilities_may_differ(built: Built, recipe: Recipe):
    build, family = built
    model = build()
    asymmetric = partial(AsymmetricQuantizer, 8, "per_token", include_zero=True)
    prepare(model, recipe(feed_forward=asymmetric, probabilities=asymmetric), family)
    kinds = {
        name: type(module.input_quantizer)
        for name, module in model.named_modules()
        if isinstance(module, FakeQuantizedLinear)
    }
    second = {name for name, kind in kinds.items() if kind is AsymmetricQuantizer}
    assert second == {name for name in kinds if name.endswith((".fc2", ".wo"))} != set()
    operands = [
        m.attention_quantizers for m in model.modules() if type(m) in family.attention_types
    ]
    assert operands
    for own in operands:
        assert {name for name, q in own.items() if type(q) is AsymmetricQuantizer} == {
            "probabilities"
        }


def test_padding_changes_nothing_for_asymmetric_probabilities(
    built: Built, recipe: Recipe, batch: Batch
):
    build, family = built
    model = build().double()
    asymmetric = partial(AsymmetricQuantizer, 4, "per_token", include_zero=True)
    prepare(model, recipe(feed_forward=asymmetric, probabilities=asymmetric), family)
    row, length = 1, int(batch["attention_mask"][1].sum())
    alone = {name: tensor[row : row + 1] for name, tensor in batch.items()}
    for name in ("input_ids", "attention_mask"):
        alone[name] = alone[name][:, :length]
    together = logits(model, batch)[row]
    torch.testing.assert_close(logits(model, alone)[0], together, rtol=0, atol=1e-9)


def test_head_policies(built: Built, recipe: Recipe, batch: Batch):
    build, family = built
    heads = {}
    for policy in ("tied", "fp", "int8"):
        model = build()
        prepare(model, recipe(head=policy), family)
        heads[policy] = model.get_submodule(family.head)
        embeddings = [m for m in model.modules() if isinstance(m, FakeQuantizedEmbedding)]
        assert len({id(m.weight_quantizer) for m in embeddings}) == 1
        assert all(m.gather_first is (policy != "tied") for m in embeddings)
    assert type(heads["fp"]) is nn.Linear
    assert heads["tied"].weight_quantizer.quantizer.bits == 2
    assert heads["int8"].weight_quantizer.quantizer.bits == 8
    assert heads["tied"].input_quantizer is not None is not heads["int8"].input_quantizer


def test_untied_head_has_its_own_quantizer(built: Built, recipe: Recipe, batch: Batch):
    build, family = built
    model = build()
    head = model.get_submodule(family.head)
    head.weight = nn.Parameter(torch.randn_like(head.weight))
    report = prepare(model, recipe(), family)
    assert family.head in report.swapped
    assert all(family.head not in names for names in report.ties)
    assert all(m.gather_first for m in model.modules() if isinstance(m, FakeQuantizedEmbedding))
    logits(model, batch)


def test_gathering_first_changes_nothing(built: Built, recipe: Recipe, batch: Batch):
    build, family = built
    results = []
    for gather_first in (True, False):
        model = build()
        prepare(model, recipe(head="fp"), family)
        for module in model.modules():
            if isinstance(module, FakeQuantizedEmbedding):
                module.gather_first = gather_first
        loss = model(**batch).logits.square().mean()
        loss.backward()
        results.append((loss.detach(), model.get_input_embeddings().weight.grad))
    assert torch.equal(results[0][0], results[1][0])
    torch.testing.assert_close(results[0][1], results[1][1], rtol=1e-5, atol=1e-7)


def test_exclude(built: Built, recipe: Recipe, batch: Batch):
    build, family = built
    prefix = family.decoder_layer_prefix
    model = build()
    report = prepare(model, recipe(exclude=(f"{prefix}0.*",)), family)
    assert report.excluded and all(name.startswith(f"{prefix}0.") for name in report.excluded)
    block = model.get_submodule(f"{prefix}0")
    assert not any(isinstance(module, FakeQuantizer) for module in block.modules())
    logits(model, batch)
    with pytest.raises(ValueError, match=r"quant\.exclude has 'encoder\.blocks\.\*'"):
        prepare(build(), recipe(exclude=("encoder.blocks.*",)), family)


def test_unknown_embeddings_and_second_preparations_raise(built: Built, recipe: Recipe):
    class Surprising(nn.Embedding):
        pass

    build, family = built
    model = build()
    model.extra = Surprising(3, 4)
    with pytest.raises(ValueError, match="extra is a Surprising"):
        prepare(model, recipe(), family)
    model = build()
    prepare(model, recipe(), family)
    with pytest.raises(ValueError, match="prepared already"):
        prepare(model, recipe(), family)


def test_saved_student_reloads_unprepared(
    built: Built, recipe: Recipe, batch: Batch, tmp_path: Path
):
    build, family = built
    model = build()
    float_logits = logits(model, batch)
    prepare(model, recipe(), family)
    model.save_pretrained(tmp_path)
    assert "attn" not in (tmp_path / "config.json").read_text()
    loaded = type(model).from_pretrained(tmp_path).eval()
    loaded.set_attn_implementation("eager")
    assert torch.equal(logits(loaded, batch), float_logits)
    prepare(loaded, recipe(), family)
    assert torch.equal(logits(loaded, batch), logits(model, batch))


def test_meta_models(built: Built, recipe: Recipe):
    build, family = built
    with torch.device("meta"):
        model = build()
    prepare(model, recipe(), family)
    assert all(parameter.is_meta for parameter in model.parameters())


def test_logits_do_not_depend_on_batch_or_padding(built: Built, recipe: Recipe, batch: Batch):
    build, family = built
    model = build()
    prepare(model, recipe(8), family)
    model.double()  # float noise moves a value across a rounding step too rarely to matter
    together = logits(model, batch)
    for row in range(3):
        length = int(batch["attention_mask"][row].sum())
        alone = {
            "input_ids": batch["input_ids"][row : row + 1, :length],
            "attention_mask": batch["attention_mask"][row : row + 1, :length],
            "decoder_input_ids": batch["decoder_input_ids"][row : row + 1],
        }
        torch.testing.assert_close(logits(model, alone)[0], together[row], rtol=0, atol=1e-9)


def test_generation_equals_the_full_forward(built: Built, recipe: Recipe, batch: Batch):
    build, family = built
    model = build()
    prepare(model, recipe(8), family)
    source = {name: batch[name] for name in ("input_ids", "attention_mask")}
    options = {"max_new_tokens": 6, "do_sample": False, "num_beams": 1, "min_new_tokens": 6}
    cached = model.generate(**source, **options)
    assert torch.equal(cached, model.generate(**source, use_cache=False, **options))
    assert model.generate(**source, max_new_tokens=4, num_beams=3).shape[0] == 3


def test_attention_is_optional(built: Built, recipe: Recipe, batch: Batch):
    build, family = built
    model = build()
    report = prepare(model, recipe(attention=None), family)
    assert "no attention quantizer" in report.skipped.values()
    weightless = partial(SymmetricQuantizer, 8, "per_token")
    model = build()
    prepare(model, QuantizationRecipe(None, None, weightless, None), family)
    assert type(model.get_submodule(family.head)) is nn.Linear
    logits(model, batch)
