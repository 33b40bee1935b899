"""Hugging Face `generate` in float32, with its fastest attention and its own cache."""

import torch
from transformers import GenerationConfig

from dq_lightning.artifacts.dequantized import resident_bytes
from dq_lightning.benchmarks.contender import FORCED_LENGTH, Contender, Sources, Subject
from dq_lightning.benchmarks.padding import padded


def load(subject: Subject, threads: int) -> Contender:
    """Take the reference model, which is in memory."""
    model = subject.reference
    model.set_attn_implementation("sdpa")
    ids = ("decoder_start_token_id", "bos_token_id", "eos_token_id", "pad_token_id")
    special = {name: getattr(model.generation_config, name) for name in ids}
    size = resident_bytes(model)

    @torch.inference_mode()
    def generate(sources: Sources, beams: int, tokens: int) -> list[list[int]]:
        torch.set_num_threads(threads)
        # The model's own config, not an argument: of that, what is None comes from the model's.
        model.generation_config = GenerationConfig(
            **FORCED_LENGTH,
            **special,
            num_beams=beams,
            min_new_tokens=tokens,
            max_new_tokens=tokens,
        )
        inputs, mask = map(torch.from_numpy, padded(sources, special["pad_token_id"] or 0))
        return model.generate(inputs, attention_mask=mask)[:, 1:].tolist()  # pyright: ignore

    name = f"{subject.reference_name}, float32, sdpa attention"
    return Contender(name, generate, None, size, size)
