"""The same student in CTranslate2, int8 weights and activations."""

import json
import time
from pathlib import Path

from dq_lightning.artifacts.export_ctranslate2 import export_ctranslate2
from dq_lightning.artifacts.optional_package import optional_package
from dq_lightning.artifacts.vocabulary import Vocabulary, vocabulary_of
from dq_lightning.benchmarks.contender import Contender, Sources, Subject

PACKAGE = "ctranslate2"


def load(subject: Subject, threads: int) -> Contender:
    """Convert the student once with CTranslate2's own converter, and load the result."""
    ctranslate2 = optional_package("ctranslate2")
    vocabulary = vocabulary_of(subject.student)
    folder = subject.folder / "ctranslate2"
    if not folder.exists():
        export_ctranslate2(subject.student, folder, vocabulary)
    began = time.perf_counter()
    translator = ctranslate2.Translator(
        str(folder), device="cpu", compute_type="int8", inter_threads=1, intra_threads=threads
    )
    seconds = time.perf_counter() - began
    ids, start = vocabulary.get_vocab(), _start(folder, subject, vocabulary)

    def generate(sources: Sources, beams: int, tokens: int) -> list[list[int]]:
        results = translator.translate_batch(
            [[vocabulary.tokens[place] for place in source] for source in sources],
            beam_size=beams,
            min_decoding_length=tokens,
            max_decoding_length=tokens,
            max_input_length=0,
            target_prefix=start and [start] * len(sources),
        )
        return [[ids[token] for token in result.hypotheses[0]] for result in results]

    size = (folder / "model.bin").stat().st_size
    return Contender("the same student, int8", generate, seconds, None, size)


def _start(folder: Path, subject: Subject, vocabulary: Vocabulary) -> list[str] | None:
    """The decoder's first token where the folder does not say it (mBART's language)."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if config["decoder_start_token"] is not None:
        return None
    return [vocabulary.tokens[subject.student.generation["decoder_start_token_id"]]]
