"""The teacher: a frozen full-precision model whose outputs are aligned to the student's layers."""

import hashlib
import importlib.util
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from dq_lightning.models.family import ModelFamily
from dq_lightning.models.layer_mapping import LayerMapping
from dq_lightning.models.recording import RecordedOutput, record


class Teacher:
    """A plain object, no nn.Module: the model stays out of state_dict, optimizer and DDP."""

    def __init__(self, model: PreTrainedModel, mapping: LayerMapping) -> None:
        self.model = model.eval().requires_grad_(False)
        self.mapping = mapping

    def __deepcopy__(self, memo: dict[int, Any]) -> "Teacher":
        """Give itself: weight averaging copies the module, and a frozen teacher can be shared."""
        return self

    @torch.no_grad()
    def __call__(
        self, inputs: Mapping[str, Tensor], requires: Collection[str] = ()
    ) -> RecordedOutput:
        """Logits, and the mapped layers of what `requires` names (see `record`).

        Runs under no_grad, not inference_mode: inference tensors cannot be saved for backward.
        """
        return self.mapping.select(record(self.model, inputs, requires))


def resolve_path(path: str) -> str:
    """The folder inside an installed package for pkg://package/folder; other paths as they are."""
    if not path.startswith("pkg://"):
        expanded = Path(path).expanduser()
        return str(expanded) if expanded.exists() else path
    package, _, folder = path.removeprefix("pkg://").partition("/")
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(f"teacher.path={path} names a package that is not installed.")
    return str(Path(next(iter(spec.submodule_search_locations))) / folder)


def load_config(path: str, revision: str | None = None) -> PreTrainedConfig:
    """The teacher's config, or a one-sentence ValueError that names the path."""
    try:
        return AutoConfig.from_pretrained(path, revision=revision)
    except (OSError, ValueError) as error:
        # transformers takes a path that does not exist for the name of a repository
        absent = path.startswith(("/", ".", "~")) and not Path(path).exists()
        reason = "there is no such folder" if absent else _first_line(error)
        raise ValueError(
            f"teacher.path={path} holds no readable model config; give a hub name or a folder "
            f"written by save_pretrained ({reason})."
        ) from error


def load_teacher(
    path: str, family: ModelFamily, revision: str | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Model in float32 and tokenizer of a hub name or a local folder.

    Raises ValueError for a folder without weights, weights that do not fit the config, a missing
    tokenizer, and a tokenizer with more tokens than the model has embeddings.
    """
    if _lacks(path, "*.safetensors", "pytorch_model*.bin"):
        raise ValueError(
            f"teacher.path={path} holds no weights; it needs model.safetensors beside config.json."
        )
    if _lacks(path, "tokenizer*", "vocab*", "*.model"):
        # transformers would make one up from the model type, with special tokens alone
        raise ValueError(
            f"teacher.path={path} holds no tokenizer; save one there with "
            "tokenizer.save_pretrained."
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, revision=revision)
    except Exception as error:  # transformers raises many types here, and each means the same
        raise ValueError(
            f"teacher.path={path} holds no readable tokenizer; save one there with "
            f"tokenizer.save_pretrained ({_first_line(error)})."
        ) from error
    try:
        loaded = family.model_class.from_pretrained(
            path,
            revision=revision or "main",
            dtype=torch.float32,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are reported, and refused below by name
        )
    except Exception as error:
        raise ValueError(
            f"teacher.path={path}: the weights cannot be loaded ({_first_line(error)})."
        ) from error
    # with output_loading_info it is a pair, which the stub does not say
    model, report = cast(tuple[PreTrainedModel, dict[str, Any]], loaded)
    _check_complete(report, family, path)
    check_tokenizer(tokenizer, model, path)
    return model, tokenizer


def _check_complete(report: dict[str, Any], family: ModelFamily, path: str) -> None:
    missing = {name for name in report["missing_keys"] if not family.computes(name)}
    if missing or report["mismatched_keys"]:
        misfits = (name for name, *_ in report["mismatched_keys"])
        lacking = sorted(missing or misfits)
        raise ValueError(
            f"teacher.path={path}: {len(lacking)} weights are missing or do not fit the config, "
            f"the first is {lacking[0]}; give the folder of a complete checkpoint."
        )


def check_tokenizer(tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel, path: str) -> None:
    """Raise ValueError when the tokenizer can make ids that the model has no embedding for."""
    rows = cast(nn.Embedding, model.get_input_embeddings()).weight.shape[0]
    if len(tokenizer) > rows:
        raise ValueError(
            f"the tokenizer does not fit teacher.path={path}: it has {len(tokenizer)} tokens, the "
            f"model only {rows} embeddings; use the tokenizer the teacher was trained with."
        )
    expected, actual = model.config.pad_token_id, tokenizer.pad_token_id
    if actual is None or (expected is not None and expected != actual):
        raise ValueError(
            f"the tokenizer does not fit teacher.path={path}: its padding token is {actual}, the "
            f"model's is {expected}; use the tokenizer the teacher was trained with."
        )


def weights_digest(model: PreTrainedModel) -> str:
    """SHA-256 of all weights and buffers: a teacher's identity, wherever it was loaded from."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _lacks(path: str, *patterns: str) -> bool:
    """Whether `path` is a local folder without a file of any of these patterns."""
    folder = Path(path)
    return folder.is_dir() and not any(file for p in patterns for file in folder.glob(p))


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
