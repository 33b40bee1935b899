"""The packed student in this project's runtime."""

import time

from dq_lightning.benchmarks.contender import FORCED_LENGTH, Contender, Sources, Subject
from dq_lightning.runtime.loading import load as load_runtime


def load(subject: Subject, threads: int) -> Contender:
    """Load the packed file as a user would."""
    began = time.perf_counter()
    runtime = load_runtime(subject.file, engine=subject.engine, threads=threads)
    seconds = time.perf_counter() - began

    def generate(sources: Sources, beams: int, tokens: int) -> list[list[int]]:
        lengths = {"min_new_tokens": tokens, "max_new_tokens": tokens}
        settings = {"num_beams": beams, **FORCED_LENGTH, **lengths}
        texts = runtime.generate_ids(sources, scores=False, **settings)
        return [text.token_ids for text in texts]

    return Contender(
        description=f"packed student, {runtime.engine_name} engine",
        generate=generate,
        load_seconds=seconds,
        resident_bytes=runtime.resident_bytes,
        stored_bytes=subject.file.stat().st_size,
    )
