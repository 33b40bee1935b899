"""Source and target language of the tokenizers that mark texts with one: mBART, M2M-100, NLLB."""

import difflib
from typing import Any

from transformers import PreTrainedTokenizerBase


def set_languages(
    tokenizer: PreTrainedTokenizerBase, source: str | None, target: str | None
) -> None:
    """Mark sources and targets with these codes from now on; None keeps the tokenizer's own.

    A tokenizer without language codes is left as it is. Raises ValueError for a code that the
    tokenizer does not know, and where no target language is set anywhere.
    """
    if not _has_languages(tokenizer):
        return
    for key, code, name in (
        ("source", source, "src_lang"),
        ("target", target, "tgt_lang"),
    ):
        chosen = getattr(tokenizer, name) if code is None else code
        _check(tokenizer, f"data.{key}_language", chosen)
        setattr(tokenizer, name, chosen)


def language_settings(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """The GenerationConfig key that makes generated texts begin in the target language.

    Where the tokenizer puts the code decides. First in the target (mBART-50, M2M-100, NLLB): it is
    the first token that the decoder writes. Last, after the end mark (mBART): the decoder is
    trained on targets whose last token is moved to the front, so it starts with the code.
    """
    if not _has_languages(tokenizer):
        return {}
    ids: Any = tokenizer(text_target="").input_ids
    if ids[0] == tokenizer.eos_token_id:
        return {"decoder_start_token_id": ids[-1]}
    return {"forced_bos_token_id": ids[0]}


def _has_languages(tokenizer: PreTrainedTokenizerBase) -> bool:
    return hasattr(tokenizer, "src_lang") and hasattr(tokenizer, "tgt_lang")


def _check(tokenizer: PreTrainedTokenizerBase, key: str, code: str | None) -> None:
    known = list(getattr(tokenizer, "lang_code_to_id", tokenizer.all_special_tokens))
    if code in known:
        return
    if code is None:
        raise ValueError(
            f"{key} is null, but the teacher's tokenizer marks each text with its language; write "
            f"{key}=<code>, the source's where both are in one language."
        )
    near = difflib.get_close_matches(code, known, n=3, cutoff=0.2)
    raise ValueError(
        f"{key}={code} is no language of the teacher's tokenizer; write one that is, such as "
        f"{', '.join(near or known[-3:])}."
    )
