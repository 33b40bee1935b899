"""A student's vocabulary as a list of distinct tokens, for runtimes that read text tokens."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from transformers import PreTrainedTokenizerBase

from dq_lightning.artifacts.packed_student import PackedStudent

_ROLES = {"<s>": "bos_token_id", "</s>": "eos_token_id", "<pad>": "pad_token_id"}


@dataclass(frozen=True)
class Vocabulary:
    """As much of a tokenizer as a converter asks for; tokens[i] is the token of id i."""

    tokens: tuple[str, ...]
    bos_token: str
    eos_token: str
    pad_token: str
    unk_token: str
    special_tokens_map: Mapping[str, Any] = field(default_factory=dict[str, Any])
    num_madeup_words: int = 0  # asked for with M2M-100: every id has its token here

    @property
    def unk_token_id(self) -> int:
        return self.tokens.index(self.unk_token)

    def get_vocab(self) -> dict[str, int]:
        """The id of each token."""
        return {token: place for place, token in enumerate(self.tokens)}

    def convert_ids_to_tokens(self, place: int) -> str:
        """The token of an id."""
        return self.tokens[place]


def vocabulary_of(
    student: PackedStudent, tokenizer: PreTrainedTokenizerBase | None = None
) -> Vocabulary:
    """The tokenizer's tokens, and one named by its number for every other id of the student."""
    settings = {**student.config, **{k: v for k, v in student.generation.items() if v is not None}}
    tokens = [f"<{place}>" for place in range(student.config["vocab_size"])]
    roles = {name: _single(settings.get(key)) for name, key in _ROLES.items()}
    if tokenizer is None:
        tokens = _named(tokens, {place: name for name, place in roles.items()})
    else:
        known = min(len(tokenizer), len(tokens))
        tokens[:known] = tokenizer.convert_ids_to_tokens(list(range(known)))
    bos, eos, pad = (tokens[place or 0] for place in roles.values())
    unknown = None if tokenizer is None else tokenizer.unk_token
    return Vocabulary(tuple(tokens), bos, eos, pad, str(unknown or pad))


def _single(place: Any) -> int | None:
    """The first of several ids, as some configs write EOS."""
    return place[0] if isinstance(place, (list, tuple)) else place


def _named(tokens: list[str], names: Mapping[int | None, str]) -> list[str]:
    return [names.get(place, token) for place, token in enumerate(tokens)]
