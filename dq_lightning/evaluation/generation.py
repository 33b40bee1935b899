"""Texts from models: one batch, or a whole split in its order."""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class TextGenerator:
    """Generates texts with fixed settings.

    settings: keyword arguments of Hugging Face `generate` (num_beams, max_new_tokens, ...); what
    they leave out comes from the model's own generation config.
    """

    tokenizer: PreTrainedTokenizerBase
    settings: Mapping[str, Any]

    @torch.no_grad()
    def __call__(self, model: PreTrainedModel, batch: Mapping[str, Tensor]) -> list[str]:
        """One text for each row of input_ids (batch, source length); leaves the model as it was."""
        was_training = model.training
        model.eval()
        try:
            ids = model.generate(  # pyright: ignore[reportCallIssue]
                input_ids=batch["input_ids"].to(model.device),
                attention_mask=batch["attention_mask"].to(model.device),
                **self.settings,
            )
        finally:
            model.train(was_training)
        texts = self.tokenizer.batch_decode(ids, skip_special_tokens=True)
        return [text.strip() for text in texts]


def generate_split(
    model: PreTrainedModel, batches: Iterable[Mapping[str, Tensor]], generator: TextGenerator
) -> tuple[list[str], float]:
    """All texts in row order (by the batches' `index`), and the seconds spent generating."""
    texts: dict[int, str] = {}
    seconds = 0.0
    for batch in batches:
        start = time.perf_counter()
        generated = generator(model, batch)
        seconds += time.perf_counter() - start
        texts.update(zip(batch["index"].tolist(), generated, strict=True))
    return [texts[index] for index in sorted(texts)], seconds
