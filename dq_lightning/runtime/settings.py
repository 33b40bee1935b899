"""Generation settings: Hugging Face's names, defaults and precedence, checked before any work."""

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from typing_extensions import Self


@dataclass(frozen=True)
class Setting:
    """One setting by its Hugging Face name: type, default (None: not set) and bounds, inclusive."""

    kind: type
    default: Any = None
    lowest: float = -math.inf
    highest: float = math.inf

    def check(self, name: str, value: Any) -> Any:
        """The value in its type; a ValueError names the setting and what it may be."""
        kinds = bool if self.kind is bool else (int, float)
        fits = isinstance(value, kinds) and isinstance(value, bool) == (self.kind is bool)
        fits = fits and abs(value) <= sys.float_info.max  # neither nan nor infinite
        fits = fits and (self.kind is not int or value == int(value))
        if not fits or not self.lowest <= value <= self.highest:
            raise ValueError(f"{name}={value!r} cannot be; write {self._described()}.")
        return self.kind(value)

    def _described(self) -> str:
        if self.kind is bool:
            return "true or false"
        noun = "an integer" if self.kind is int else "a number"
        # An integer as it is: :g would round it.
        low, high = (b if isinstance(b, int) else f"{b:g}" for b in (self.lowest, self.highest))
        low = "" if math.isinf(self.lowest) else f" from {low}"
        return noun + low + ("" if math.isinf(self.highest) else f" to {high}")


# The largest integer of the native engine, which would take the low bits of a larger one.
_MOST = 2**31 - 1
_TOKEN = Setting(int, None, 0, _MOST)
# Smallest positive number: bounds are inclusive, and 0 would divide by zero.
_POSITIVE = 1e-6

SETTINGS: dict[str, Setting] = {
    "num_beams": Setting(int, 1, 1, _MOST),
    "do_sample": Setting(bool, False),
    "temperature": Setting(float, 1.0, _POSITIVE),
    "top_k": Setting(int, 50, 0, _MOST),
    "top_p": Setting(float, 1.0, 0.0, 1.0),
    "seed": Setting(int, 0, 0, 2**63 - 1),
    "length_penalty": Setting(float, 1.0),
    "min_length": Setting(int, 0, 0, _MOST),
    "max_length": Setting(int, 21, 2, _MOST),
    "min_new_tokens": Setting(int, None, 0, _MOST - 1),
    "max_new_tokens": Setting(int, None, 1, _MOST - 1),
    "no_repeat_ngram_size": Setting(int, 0, 0, _MOST),
    "encoder_no_repeat_ngram_size": Setting(int, 0, 0, _MOST),
    "repetition_penalty": Setting(float, 1.0, _POSITIVE),
    "renormalize_logits": Setting(bool, False),
    "num_return_sequences": Setting(int, 1, 1, _MOST),
    "forced_bos_token_id": _TOKEN,
    "forced_eos_token_id": _TOKEN,
    "decoder_start_token_id": _TOKEN,
    "bos_token_id": _TOKEN,
    "pad_token_id": _TOKEN,
}
# Read only where do_sample is true, and only with more than one beam.
_OF_SAMPLING = ("temperature", "top_k", "top_p", "seed")
_OF_BEAMS = ("length_penalty", "early_stopping")
# Checked below, each in its own way.
_OTHERS = ("early_stopping", "eos_token_id", "bad_words_ids")

# What a stored config may say without any effect on the texts.
_WITHOUT_EFFECT = frozenset(
    "use_cache cache_implementation cache_config max_cache_len output_attentions "
    "output_hidden_states output_scores output_logits return_dict_in_generate compile_config "
    "disable_compile prefill_chunk_size low_memory is_assistant num_assistant_tokens "
    "num_assistant_tokens_schedule assistant_confidence_threshold assistant_lookbehind "
    "target_lookbehind max_matching_ngram_size speculation_type transformers_version "
    "continuous_batching_config".split()
)
# Settings of Hugging Face that are not supported, with the values (beside None) that mean "off".
_OFF: dict[str, tuple[Any, ...]] = {
    "num_beam_groups": (1,), "diversity_penalty": (0.0,), "typical_p": (1.0,),
    "epsilon_cutoff": (0.0,), "eta_cutoff": (0.0,), "encoder_repetition_penalty": (1.0,),
    "guidance_scale": (1.0,), "remove_invalid_values": (False,), "token_healing": (False,),
    "use_mtp": (False,), "penalty_alpha": (0.0,), "suppress_tokens": ([],),
    "begin_suppress_tokens": ([],), "min_p": (), "top_h": (), "max_time": (), "stop_strings": (),
    "exponential_decay_length_penalty": (), "sequence_bias": (), "watermarking_config": (),
    "dola_layers": (), "constraints": (), "force_words_ids": (), "prompt_lookup_num_tokens": (),
    "assistant_early_exit": (), "assistant_ensemble_weight": (),
}  # fmt: skip


@dataclass(frozen=True)
class GenerationSettings:
    """What decides a text beside its source; every name as in transformers' GenerationConfig.

    min_length, max_length: decoder tokens, start token and EOS included.
    early_stopping: True: stop at num_beams finished texts; False: as soon as no running beam can
        become better at its present length; "never": only when none can at any length.
    temperature, top_k (0: all), top_p, seed: read where do_sample is true. The seed decides each
        source's draws by itself, whatever stands beside it.
    bad_token_ids: tokens that are never produced (bad_words_ids of one token each, EOS left out).
    renormalize_logits: log-probabilities sum to one again after the rules above took tokens out.
    output_scores: False: an engine may leave the scores of beams out, where they cost memory.
    """

    decoder_start_token_id: int
    pad_token_id: int
    eos_token_ids: tuple[int, ...] = ()
    num_beams: int = 1
    do_sample: bool = False
    temperature: float = 1.0
    top_k: int = 50
    top_p: float = 1.0
    seed: int = 0
    length_penalty: float = 1.0
    early_stopping: bool | Literal["never"] = False
    min_length: int = 0
    max_length: int = 21
    no_repeat_ngram_size: int = 0
    encoder_no_repeat_ngram_size: int = 0
    repetition_penalty: float = 1.0
    forced_bos_token_id: int | None = None
    forced_eos_token_id: int | None = None
    bad_token_ids: tuple[int, ...] = ()
    renormalize_logits: bool = False
    num_return_sequences: int = 1
    output_scores: bool = True

    def __post_init__(self) -> None:
        most = self.num_beams if self.num_beams > 1 or not self.do_sample else math.inf
        if self.num_return_sequences > most:
            raise ValueError(
                f"num_return_sequences={self.num_return_sequences} needs as many beams "
                f"(num_beams={self.num_beams}) or do_sample=true with one beam."
            )

    @classmethod
    def of(cls, generation: Mapping[str, Any], **overrides: Any) -> Self:
        """What `generate(**overrides)` of a model with this generation config would do.

        An override of None is Hugging Face's default. max_new_tokens goes over max_length and
        min_new_tokens over min_length, wherever they stand. Differs from Hugging Face, which
        warns: an override that other settings make void is a ValueError, unless it is the stored
        value or the default. So is a setting that is unknown or unsupported, unless its value
        means "off".
        """
        given = {n: v for n, v in {**generation, **overrides}.items() if _matters(n, v)}
        chosen = {name: setting.default for name, setting in SETTINGS.items()}
        for name, value in given.items():
            if name not in _OTHERS:
                chosen[name] = SETTINGS[name].check(name, _single(name, value))
        eos = _tokens("eos_token_id", given.get("eos_token_id", ()))
        start = chosen["decoder_start_token_id"]
        start = chosen["bos_token_id"] if start is None else start
        if start is None:
            raise ValueError("decoder_start_token_id is not set; give the decoder's first token.")
        pad = chosen["pad_token_id"]
        new = {edge: chosen[f"{edge}_new_tokens"] for edge in ("min", "max")}
        lengths = {f"{edge}_length": 1 + n for edge, n in new.items() if n is not None}
        chosen |= lengths | {
            "decoder_start_token_id": start,
            "pad_token_id": (*eos, start)[0] if pad is None else pad,
            "eos_token_ids": eos,
            "early_stopping": _early_stopping(given.get("early_stopping", False)),
            "bad_token_ids": _bad_tokens(given.get("bad_words_ids", ()), eos),
        }
        _refuse_void(generation, overrides, chosen)
        return cls(**{own.name: chosen[own.name] for own in fields(cls) if own.name in chosen})


def _refuse_void(
    generation: Mapping[str, Any], overrides: Mapping[str, Any], chosen: Mapping[str, Any]
) -> None:
    # A run gives its own settings to the file that stores them: such values ask for nothing new.
    new = {n: v for n, v in overrides.items() if v is not None and v != generation.get(n)}
    for edge in ("min", "max"):
        stored = generation.get(f"{edge}_new_tokens")
        wins = stored is not None and f"{edge}_new_tokens" not in overrides
        if wins and f"{edge}_length" in new:
            raise ValueError(
                f"{edge}_length={new[f'{edge}_length']!r} would have no effect, because the "
                f"student's {edge}_new_tokens={stored!r} goes before; write {edge}_new_tokens=..."
            )
    void = {} if chosen["do_sample"] else dict.fromkeys(_OF_SAMPLING, "do_sample=true")
    void |= dict.fromkeys(_OF_BEAMS, "num_beams=2 or more") if chosen["num_beams"] == 1 else {}
    for name, needed in void.items():
        default = SETTINGS[name].default if name in SETTINGS else False
        if name in new and new[name] != default:
            raise ValueError(f"{name}={new[name]!r} would have no effect without {needed}.")


def _matters(name: str, value: Any) -> bool:
    """Whether a setting is set; raises ValueError for one that is unknown or unsupported."""
    if name in SETTINGS or name in _OTHERS:
        return value is not None
    if name.startswith("_") or name in _WITHOUT_EFFECT:
        return False
    if name not in _OFF or (value is not None and value not in _OFF[name]):
        reason = f"{name}={value!r} is not supported" if name in _OFF else f"{name} is unknown"
        known = ", ".join(sorted((*SETTINGS, *_OTHERS)))
        raise ValueError(f"The generation setting {reason}; the known ones: {known}.")
    return False


def _single(name: str, value: Any) -> Any:
    """A list of one token as that token, as some configs write it."""
    listed = name.endswith("_token_id") and isinstance(value, (list, tuple))
    return value[0] if listed and len(value) == 1 else value


def _tokens(name: str, value: Any) -> tuple[int, ...]:
    several = value if isinstance(value, (list, tuple)) else (value,)
    return tuple(_TOKEN.check(name, token) for token in several)


def _bad_tokens(words: Any, eos: tuple[int, ...]) -> tuple[int, ...]:
    if not all(isinstance(word, (list, tuple)) and len(word) == 1 for word in words):
        raise ValueError(
            f"bad_words_ids={words!r} is not supported; write words of one token, such as [[7]]."
        )
    tokens = (token for word in words for token in _tokens("bad_words_ids", word))
    return tuple(token for token in tokens if token not in eos)


def _early_stopping(value: Any) -> bool | Literal["never"]:
    if value is True or value is False or value == "never":
        return value
    raise ValueError(f"early_stopping={value!r} cannot be; write true, false or never.")
