"""Every option composes, every `_target_` imports and takes its keys, every key is explained."""

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import ConfigCompositionException
from hydra.utils import get_object
from omegaconf import DictConfig, ListConfig, OmegaConf

from dq_lightning.choices import build_recipe, cell_columns
from dq_lightning.models.layer_mapping import parse_layers
from dq_lightning.quantization.recipe import parse_bits

CONF = Path(__file__).parents[1] / "conf"
MANDATORY = {"data=hub": ["data.name=owner/name"], "teacher=hub": ["teacher.path=somewhere"]}
"""What an option asks the user for."""
MOUNTS = {
    "quantizer": ["quantizer@quant.{site}.quantizer={option}"],
    "loss": ["+loss@distill.losses.extra={option}", "+distill.weights.extra=1"],
    "metric": ["metric={option}"],
}
"""Groups that are not mounted at their own name."""
AT_RUN_TIME = {
    "quantizer": {"bits"},
    "optimizer": {"params"},
    "scheduler": {"optimizer", "num_training_steps"},
    "pseudo_label": {"rows", "texts"},
    "quant_schedule": {"student", "recipe", "family"},
    "wandb": {"name", "group"},
}
"""Arguments that code gives, by the name of the config node (or the one above it)."""

FOR_CODE = {"optimizer": {"scale_lr", "depth_exponent", "embedding_factor"}}
"""Keys that code reads itself, by the name of the config node."""


def options(group: str) -> list[str]:
    return sorted(
        str(file.relative_to(CONF / group).with_suffix(""))
        for file in (CONF / group).rglob("*.yaml")
    )


def commands() -> list[list[str]]:
    """One command line for every option of every group."""
    found: list[list[str]] = [[]]
    for group in sorted(folder.name for folder in CONF.iterdir() if folder.is_dir()):
        for option in options(group):
            choice = f"{group}={option}"
            if group == "hydra" and "/" in option:  # a group below it, such as hydra/launcher
                choice = "hydra/{}={}".format(*option.split("/"))
            overrides = MOUNTS.get(group, [f"{'+' * (group == 'sweep')}{choice}"])
            for site in ("weight", "attention") if group == "quantizer" else ("",):
                found.append(
                    [o.format(option=option, site=site) for o in overrides]
                    + MANDATORY.get(choice, [])
                )
    presets = [name for name in options("data") if name != "hub"]
    found += [["debug=fast", f"data={name}"] for name in presets]
    return found


def composed(overrides: list[str]) -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("train", ["paths.output_dir=here", *overrides])


def nodes(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every mapping of a config, with the keys that lead to it."""
    if isinstance(value, dict):
        yield path, value
        for key, child in value.items():
            yield from nodes(child, (*path, str(key)))
    elif isinstance(value, list):
        for number, child in enumerate(value):
            yield from nodes(child, (*path, str(number)))


def bind(path: tuple[str, ...], node: dict[str, Any]) -> None:
    """Raise a TypeError unless `_target_` takes the node's keys and lacks nothing it needs."""
    target = get_object(node["_target_"])
    own = FOR_CODE.get(path[-1], set())
    given = {k: v for k, v in node.items() if not re.fullmatch("_.*_", str(k)) and k not in own}
    names = {name for part in path[-2:] for name in AT_RUN_TIME.get(part, ())}
    signature = inspect.signature(target)
    missing = names & set(signature.parameters) - set(given)
    signature.bind(*node.get("_args_", ()), **given, **dict.fromkeys(missing))
    assert bool(node.get("_partial_")) == bool(missing) or "wandb" in path


@pytest.mark.parametrize("overrides", commands(), ids=" ".join)
def test_composes_resolves_and_binds(overrides: list[str]) -> None:
    cfg = composed(overrides)
    resolved = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=False)
    targets = [(path, node) for path, node in nodes(resolved) if "_target_" in node]
    assert {path[0] for path, _ in targets} >= {"data", "distill", "metric", "optimizer", "trainer"}
    for path, node in targets:
        bind(path, node)
    assert OmegaConf.missing_keys(cfg) <= {"data.name", "teacher.path"}
    for group in ("callbacks", "logger"):  # read with .items()
        assert isinstance(cfg[group], DictConfig)


def test_the_hydra_group_binds_too() -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        hydra = compose("train", return_hydra_config=True).hydra
    callback = OmegaConf.to_container(hydra.callbacks)["sweep_report"]
    bind(("sweep_report",), callback)
    assert hydra.job.chdir is False


@pytest.mark.parametrize(
    "node",
    [
        {"_target_": "torch.optim.AdamW", "_partial_": True, "learning_rate": 1.0},
        {"_target_": "dq_lightning.training.step_seed.StepSeed"},
        {"_target_": "dq_lightning.training.step_seed.StepSeed", "seed": 1, "_partial_": True},
        {"_target_": "torch.optim.AdamW", "lr": 1.0},
    ],
)
def test_the_binding_test_can_fail(node: dict[str, Any]) -> None:
    with pytest.raises((TypeError, AssertionError)):
        bind(("optimizer",), node)


@pytest.mark.parametrize(
    ("override", "bits"),
    [
        ("quant.bits=2", "2-2-8"),
        ("quant.bits=4", "4-4-8"),
        ("quant.bits=2-2-8", "2-2-8"),
        ("quant.bits=8-8-32", "8-8-32"),
        ("quant=none", "32-32-32"),
        ("quant=dq_bart", "2-2-8"),
    ],
)
def test_bits_notation_survives_the_command_line(override: str, bits: str) -> None:
    assert str(parse_bits(composed([override]).quant.bits)) == bits


@pytest.mark.parametrize("option", options("quant"))
def test_every_quant_option_has_all_sites_and_builds(option: str) -> None:
    """The merge of the sites feed_forward and probabilities once left options without them."""
    quant = composed([f"quant={option}"]).quant
    assert quant.keys() == composed([]).quant.keys()
    assert build_recipe(quant).bits == parse_bits(quant.bits)


@pytest.mark.parametrize("value", ["3.5", "2-2", "0", "9", "2-2-8-8", "two", "true", "[2,2,8]"])
def test_bad_bits_compose_and_are_then_refused(value: str) -> None:
    with pytest.raises(ValueError, match=r"^quant\.bits="):
        parse_bits(composed([f"quant.bits={value}"]).quant.bits)


@pytest.mark.parametrize(
    ("override", "layers"),
    [("student.layers=3", (3, 3)), ("student.layers=6-3", (6, 3)), ("student=scratch", (6, 6))],
)
def test_layers_notation_survives_the_command_line(override: str, layers: tuple[int, int]) -> None:
    assert parse_layers(composed([override]).student.layers) == layers


def test_the_default_run() -> None:
    cfg = composed([])
    assert str(parse_bits(cfg.quant.bits)) == "2-2-8"
    assert parse_layers(cfg.student.layers) == (6, 3)
    assert all(cfg.quant[site].bits is None for site in ("weight", "embedding", "activation"))
    assert cfg.ckpt is None


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        ([], "2-2-8 6-3"),
        (["student.num_heads=2"], "2-2-8 6-3 num_heads=2"),
        (["student.layers=3-1", "student.width=64"], "2-2-8 3-1 width=64"),
        (["student=scratch", "teacher=none"], "2-2-8 6-6"),
    ],
)
def test_a_run_is_named_by_bits_layers_and_the_sizes_given(overrides: list[str], name: str) -> None:
    columns = cell_columns(composed(overrides))
    assert columns["name"] == name
    assert columns.get("num_heads") == (2 if "num_heads" in name else None)


@pytest.mark.parametrize(
    "override", ["quant.bitz=2", "student.layer=3", "qant=none", "quant=nothing", "sede=1"]
)
def test_a_misspelt_key_or_group_does_not_compose(override: str) -> None:
    with pytest.raises(ConfigCompositionException):
        composed([override])


def test_every_loss_has_a_weight() -> None:
    for option in options("distill"):
        distill = composed([f"distill={option}"]).distill
        assert set(distill.losses) == set(distill.weights)


def test_debug_fast_is_fast_with_every_experiment() -> None:
    for option in ["", *options("experiment")]:
        cfg = composed([f"experiment={option}"] * bool(option) + ["debug=fast"])
        assert cfg.steps <= 10, option
        assert max(cfg.data.limit_train, cfg.data.limit_test, cfg.validation_rows) <= 100, option


# Files that only change keys which another file introduces, and explains.
DELTAS = ("experiment/", "debug/", "sweep/", "quant/dq_bart.yaml")


def unexplained(file: Path) -> Iterator[str]:
    """Lines that introduce a key with a value, without a comment beside or above them.

    Need none: Hydra's own words; keys below `generation` and `config` (arguments of transformers)
    and `reader` (forwarded); and a key that shares a word with the explained one above it, as
    limit_validation does with limit_train.
    """
    name = str(file.relative_to(CONF))
    inherits = re.search(r"^  - (hub|default)$", file.read_text(), re.MULTILINE)
    if name.startswith(DELTAS) or inherits:
        return
    comment_above, words, hidden = False, set[str](), -1
    for line in file.read_text().splitlines():
        indent, text = len(line) - len(line.lstrip()), line.strip()
        if not text or text.startswith("#"):
            comment_above = text.startswith("#")
            continue
        if (hidden >= 0 and indent > hidden) or text.startswith("- "):
            continue
        key, _, value = text.partition(":")
        hidden = indent if key in ("generation", "config", "reader") else -1
        explained = comment_above or "#" in value or bool(words & set(key.split("_")))
        if not explained and value and not re.fullmatch("_.*_", key):
            yield f"{name}: {text}"
        words = set(key.split("_")) if explained else set()
        comment_above = False


@pytest.mark.parametrize(
    "file", sorted(CONF.rglob("*.yaml")), ids=lambda file: str(file.relative_to(CONF))
)
def test_every_file_and_every_key_is_explained(file: Path) -> None:
    lines = [line for line in file.read_text().splitlines() if "@package" not in line]
    assert lines[0].startswith("# "), "a file begins with a sentence about what it is"
    assert list(unexplained(file)) == []


def test_no_list_holds_what_a_sweep_would_change() -> None:
    """OmegaConf replaces lists whole, so sites, losses and callbacks are dicts."""
    cfg = composed([])
    for group in ("quant", "distill", "callbacks", "logger"):
        for _, node in nodes(OmegaConf.to_container(cfg[group], resolve=True)):
            lists = [value for value in node.values() if isinstance(value, list | ListConfig)]
            assert not any(isinstance(item, dict) for value in lists for item in value)
