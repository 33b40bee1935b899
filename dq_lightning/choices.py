"""What a config chooses, as plain values: bits, layers, sizes, and the quantizer of each site."""

import hashlib
import json
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from dq_lightning.models.layer_mapping import parse_layers
from dq_lightning.models.narrowing import Narrowing
from dq_lightning.quantization.recipe import QuantizationRecipe, at_bits, parse_bits


def build(node: Any, **arguments: Any) -> Any:
    """The object that a config node describes."""
    return instantiate(node, **arguments)


def plain(node: Any) -> Any:
    """A config node as plain dicts, lists and scalars, interpolations resolved."""
    return OmegaConf.to_container(node, resolve=True)


_SAVE_DTYPES = ("float32", "float16", "bfloat16")
_NOT_OF_THE_CELL = ("paths", "logger", "ckpt", "samples", "jobs", "sweep", "hydra")


def cell_id(cfg: DictConfig) -> str:
    """Twelve hexadecimal digits that say which cell of any grid this is.

    Two configs with the same resolved values share it, wherever they write, log and run.
    """
    # one node at a time: resolving the paths would ask for a run directory before there is one
    keys = sorted(str(key) for key in cfg if key not in _NOT_OF_THE_CELL)
    values = {key: plain(cfg[key]) if OmegaConf.is_config(cfg[key]) else cfg[key] for key in keys}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]


def cell_columns(cfg: DictConfig) -> dict[str, Any]:
    """What names this run in a grid; raises for bits and layers that cannot be read.

    Other sizes of the student (student.num_heads=2) are part of it where the config gives them.
    """
    bits, layers = build_recipe(cfg.quant).bits, chosen_layers(cfg.student)
    narrowing = chosen_narrowing(cfg.student)
    return {
        "name": " ".join([str(bits), f"{layers[0]}-{layers[1]}", *narrowing.words()]),
        "weight_bits": bits.weight,
        "embedding_bits": bits.embedding,
        "activation_bits": bits.activation,
        "encoder_layers": layers[0],
        "decoder_layers": layers[1],
        **narrowing.given(),
    }


def chosen_layers(student: DictConfig) -> tuple[int, int]:
    """(encoder, decoder) layers: those of student.layers, where no own number is given."""
    layers = parse_layers(student.layers)
    own = student.encoder_layers, student.decoder_layers
    return parse_layers(
        "-".join(str(a if b is None else b) for a, b in zip(layers, own, strict=True))
    )


def chosen_narrowing(student: DictConfig) -> Narrowing:
    """The student's own sizes; a student from scratch has all of its own in its config."""
    return Narrowing(student.get("num_heads"), student.get("width"), student.get("feed_forward"))


def chosen_save_dtype(student: DictConfig) -> str:
    """The name of the type that a student's weights are saved in; raises for an unknown one."""
    if student.save_dtype not in _SAVE_DTYPES:
        raise ValueError(
            f"student.save_dtype={student.save_dtype} is unknown; write one of {_SAVE_DTYPES}."
        )
    return student.save_dtype


def writes_targets(cfg: DictConfig) -> bool:
    """Whether the teacher writes the training targets (sequence-level distillation)."""
    return bool(cfg.pseudo_label) and bool(cfg.pseudo_label.enabled)


def build_recipe(quant: DictConfig) -> QuantizationRecipe:
    """The quantizer of each site at its own bits, or at those of quant.bits."""
    bits = parse_bits(quant.bits)
    sites: dict[str, Any] = {}
    for site, default, general in (
        ("weight", bits.weight, None),
        ("embedding", bits.embedding, None),
        ("activation", bits.activation, None),
        ("attention", bits.activation, None),
        ("feed_forward", bits.activation, "activation"),
        ("probabilities", bits.activation, "attention"),
    ):
        chosen = quant.get(site) or OmegaConf.create({"quantizer": None, "bits": None})
        node, own = chosen.quantizer, chosen.bits
        if node is None and general is not None:  # nothing of its own: as the general site
            node, own = quant[general].quantizer, quant[general].bits if own is None else own
        sites[site] = at_bits(build(node), default if own is None else own)
        try:
            _ = sites[site] and sites[site]()
        except ValueError as error:
            key = f"quant.bits={quant.bits}" if own is None else f"quant.{site}.bits={own}"
            raise ValueError(f"quant.{site}.quantizer at {key}: {error}") from error
    exclude = (quant.exclude,) if isinstance(quant.exclude, str) else tuple(quant.exclude)
    return QuantizationRecipe(**sites, head=quant.head, exclude=exclude)
