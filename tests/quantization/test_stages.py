"""Exchanged quantizers compute what a model prepared with them would."""

from dataclasses import replace
from functools import partial

import pytest
import torch

from dq_lightning.quantization.prepare import prepare
from dq_lightning.quantization.recipe import QuantizationRecipe
from dq_lightning.quantization.stages import fresh_quantizers, present_quantizers, use_quantizers
from dq_lightning.quantization.symmetric import SymmetricQuantizer
from dq_lightning.quantization.ternary import ternary_or_symmetric


def recipe(bits, head="tied"):
    rows = partial(ternary_or_symmetric, bits=bits, granularity="per_row")
    tokens = partial(SymmetricQuantizer, bits=8, granularity="per_token")
    return QuantizationRecipe(rows, rows, tokens, tokens, head)


def prepared(build, family, chosen):
    model = build()
    prepare(model, chosen, family)
    return model


@torch.no_grad()
def logits(model, batch):
    return model(**batch).logits


@pytest.mark.parametrize("head", ["tied", "fp", "int8"])
@pytest.mark.parametrize("bits", [8, 4])
def test_exchanged_is_prepared_so(built, batch, bits, head):
    """Bit for bit, at once after results at other bits were kept, and back again."""
    build, family = built
    model = prepared(build, family, recipe(2, head))
    own, before = present_quantizers(model), logits(model, batch)
    use_quantizers(fresh_quantizers(model, recipe(bits, head), family))
    expected = logits(prepared(build, family, recipe(bits, head)), batch)
    torch.testing.assert_close(logits(model, batch), expected, rtol=0, atol=0)
    assert not torch.equal(expected, before)
    use_quantizers(own)
    torch.testing.assert_close(logits(model, batch), before, rtol=0, atol=0)


def test_every_parameter_of_the_recipe_is_found(built):
    build, family = built
    model = prepared(build, family, recipe(2))
    assert fresh_quantizers(model, recipe(4), family).keys() == present_quantizers(model).keys()


def test_sites_in_full_precision_stay_so(built):
    build, family = built
    chosen = replace(recipe(2), weight=None)
    model = prepared(build, family, chosen)
    fresh = fresh_quantizers(model, chosen.with_weight_bits(8), family)
    assert {quantizer.bits for quantizer in fresh.values()} == {8}
    assert fresh.keys() == present_quantizers(model).keys()


@pytest.mark.parametrize(("bits", "expected"), [(8, "8-8-8"), (4, "4-6-8"), (2, "2-6-8")])
def test_no_site_gets_fewer_bits_than_its_own(bits, expected):
    six = partial(SymmetricQuantizer, bits=6, granularity="per_row")
    assert str(replace(recipe(2), embedding=six).with_weight_bits(bits).bits) == expected
