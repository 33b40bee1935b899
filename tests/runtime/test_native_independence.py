"""Nothing but the source decides a text: not its neighbours, the threads or the size of a batch."""

import numpy as np
import pytest
import torch

from dq_lightning.artifacts.packed_student import pack_student
from dq_lightning.models.family import family_of
from dq_lightning.runtime.build import INSTRUCTION_SETS
from dq_lightning.runtime.native import NativeEngine
from dq_lightning.runtime.settings import GenerationSettings

BASE = {"decoder_start_token_id": 1, "pad_token_id": 0, "eos_token_ids": (2,), "max_length": 12}
LENGTHS = (1, 230, 16, 17, 95, 97, 3, 64, 15, 33, 7)


def engines(student, name, isa, threads):
    packed = pack_student(student, family_of(student.config))
    try:
        return [NativeEngine(packed, threads=n, isa=isa) for n in threads]
    except ValueError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def students(student):
    """One of each kind; learned positions for 300 tokens."""
    bart = student("bart")
    for stack in (bart.model.encoder, bart.model.decoder):
        stack.embed_positions.weight = torch.nn.Parameter(torch.randn(302, 16))
    bart.config.max_position_embeddings = 300
    return {"bart": bart, "flan": student("flan", "quant.attention.bits=32")}


@pytest.fixture(scope="session")
def sources():
    generator = np.random.default_rng(0)
    return [generator.integers(3, 70, length).tolist() for length in LENGTHS]


@pytest.mark.parametrize("isa", INSTRUCTION_SETS)
@pytest.mark.parametrize("name", ["bart", "flan"])
def test_scores_are_the_same_bit_for_bit(students, sources, name, isa):
    settings = GenerationSettings(**BASE, num_beams=3, num_return_sequences=2)
    one, three = engines(students[name], name, isa, (1, 3))
    together = one.generate(sources, settings)
    assert together == three.generate(sources, settings)
    assert together == one.generate(sources * 3, settings)[: len(together)]
    for place, source in enumerate(sources):
        own = together[2 * place : 2 * place + 2]
        assert own == one.generate([source], settings)
        assert own == three.generate([source], settings)  # three threads inside one sentence


@pytest.mark.parametrize("name", ["bart", "flan"])
def test_logits_are_the_same_bit_for_bit(students, sources, name):
    one, three = engines(students[name], name, None, (1, 3))
    targets = [[1, *source[:9]] for source in sources]
    alone = [one.logits([s], [t])[0] for s, t in zip(sources, targets, strict=True)]
    for own, other in zip(alone, three.logits(sources, targets), strict=True):
        torch.testing.assert_close(own, other, rtol=0, atol=0)


def test_no_sources_no_texts(students):
    (engine,) = engines(students["bart"], "bart", None, (2,))
    assert engine.generate([], GenerationSettings(**BASE)) == []


def test_a_text_that_ended_changes_nothing_for_the_others(students, sources):
    """Sentences leave the batch at different steps."""
    (engine,) = engines(students["bart"], "bart", None, (1,))
    settings = GenerationSettings(**{**BASE, "eos_token_ids": tuple(range(2, 30))}, num_beams=2)
    together = engine.generate(sources, settings)
    assert len({len(text.token_ids) for text in together}) > 2
    assert together == [engine.generate([source], settings)[0] for source in sources]
