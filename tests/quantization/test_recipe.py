"""Bits, recipes, and the configs that describe them."""

from pathlib import Path

import hydra
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from dq_lightning.choices import build_recipe
from dq_lightning.quantization.asymmetric import AsymmetricQuantizer
from dq_lightning.quantization.identity import IdentityQuantizer
from dq_lightning.quantization.recipe import Bits, QuantizationRecipe, at_bits, parse_bits
from dq_lightning.quantization.tbt_binary import TbtBinaryQuantizer

CONF = Path(__file__).parents[2] / "conf"
SITES = ("weight", "embedding", "activation", "attention")


@pytest.mark.parametrize(
    ("value", "bits"),
    [
        (2, Bits(2, 2, 8)),
        ("4", Bits(4, 4, 8)),
        ("2-4-8", Bits(2, 4, 8)),
        ("32-32-32", Bits(32, 32, 32)),
    ],
)
def test_parse_bits(value: object, bits: Bits) -> None:
    assert parse_bits(value) == bits
    assert parse_bits(str(bits)) == bits


@pytest.mark.parametrize(
    "value", ["2-2", 3.5, "0", 9, "a-b-c", 32, True, None, "", "2-2-16", -2, "2--8"]
)
def test_bad_bits_say_what_to_write(value: object) -> None:
    with pytest.raises(ValueError, match=r"^quant\.bits=.*2-2-8.*\.$") as raised:
        parse_bits(value)
    assert repr(value) in str(raised.value)


def test_at_bits() -> None:
    assert at_bits(None, 2) is None
    assert at_bits(IdentityQuantizer, 32) is None
    factory = at_bits(IdentityQuantizer, 4)
    assert factory is not None and factory().bits == 4


def test_head_is_checked() -> None:
    with pytest.raises(ValueError, match="tied, fp or int8"):
        QuantizationRecipe(None, None, None, None, head="int4")  # type: ignore[arg-type]


def composed(name: str, *overrides: str) -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(overrides=[f"+quant={name}", *overrides]).quant


def test_every_quant_config_builds_its_sites() -> None:
    names = [path.stem for path in (CONF / "quant").glob("*.yaml")]
    assert {"default", "none", "dq_bart"} <= set(names)
    for name in names:
        config = composed(name)
        recipe = build_recipe(config)
        assert recipe.bits == parse_bits(config.bits)
        assert (recipe.feed_forward_input is None) == (recipe.activation is None)
        for site in SITES:
            assert config[site].bits is None
            if config[site].quantizer is not None:
                hydra.utils.instantiate(config[site].quantizer)(bits=2)


def test_published_sites() -> None:
    config = composed("dq_bart")
    quantizers = {site: hydra.utils.instantiate(config[site].quantizer)(bits=2) for site in SITES}
    granularities = [quantizer.granularity.value for quantizer in quantizers.values()]
    assert granularities == ["per_tensor", "per_row", "per_tensor", "per_tensor"]
    assert all(quantizer.clip == 2.5 for quantizer in quantizers.values())
    assert config.head == "fp" and OmegaConf.is_missing(config, "bits") is False


def test_sites_without_an_own_quantizer_are_as_the_general_one() -> None:
    plain = build_recipe(composed("default"))
    assert plain.feed_forward_input().bits == 8 and plain.operands["probabilities"]().bits == 8
    fewer = build_recipe(
        composed("default", "quant.feed_forward.bits=4", "quant.activation.bits=6")
    )
    assert (fewer.feed_forward_input().bits, fewer.activation().bits) == (4, 6)
    kept = build_recipe(composed("default", "quant.probabilities.bits=32"))
    assert kept.operands["probabilities"] is None and kept.operands["query"] is not None
    tbt = build_recipe(composed("tbt", "quant.bits=1-1-8"))
    assert isinstance(tbt.weight(), TbtBinaryQuantizer)
    assert isinstance(tbt.operands["probabilities"](), AsymmetricQuantizer)


def test_a_site_takes_another_quantizer() -> None:
    for name in (path.stem for path in (CONF / "quantizer").glob("*.yaml")):
        config = composed("default", f"quantizer@quant.weight.quantizer={name}")
        assert config.weight.quantizer.granularity == "per_row"
        bits = 1 if name == "tbt_binary" else 2
        try:
            quantizer = hydra.utils.instantiate(config.weight.quantizer)(bits=bits)
        except ValueError as error:  # one learned scale a module
            assert str(error).endswith("write granularity=per_tensor.")
            continue
        assert quantizer.granularity in quantizer.granularities
