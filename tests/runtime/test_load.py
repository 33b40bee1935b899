"""A packed file loads and generates texts, by itself."""

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from transformers import NllbTokenizer

import dq_lightning.runtime
from dq_lightning.artifacts.packed_file import write_packed
from dq_lightning.artifacts.tokenizer_files import tokenizer_files
from dq_lightning.data.g2p_tokenizer import build_g2p_tokenizer
from dq_lightning.runtime import Runtime, load, native
from dq_lightning.runtime.build import NativeBuildError
from dq_lightning.runtime.texts import texts_of

TEXTS = ["distillation", "a", "quantized", "word of words"]
GENERATION = {"max_new_tokens": 9, "num_beams": 2, "no_repeat_ngram_size": 2}


@pytest.fixture(scope="module")
def model(student):
    return student("bart", "quant.bits=8")


@pytest.fixture(scope="module")
def packed_texts(model, packed):
    """Give a packed student with a tokenizer, which reads six tokens of ab and its source."""
    text = {"max_source_length": 6, "source_prefix": "ab"}
    files = tokenizer_files(build_g2p_tokenizer())
    return packed(model, generation=GENERATION, text=text, files=files, positions_bits=32)


@pytest.fixture(scope="module")
def runtime(packed_texts) -> Runtime:
    return load(packed_texts, engine="torch")


def test_a_file_generates_what_the_student_generates(model, packed_texts, tmp_path):
    write_packed(tmp_path / "model.dq", packed_texts)
    tokenizer = build_g2p_tokenizer()
    expected = []
    for text in TEXTS:
        batch = tokenizer(["ab" + text], max_length=6, truncation=True, return_tensors="pt")
        rows = model.generate(batch["input_ids"], attention_mask=batch["attention_mask"],
                              **GENERATION)  # fmt: skip
        expected.append(tokenizer.decode(rows[0], skip_special_tokens=True).strip())
    loaded = load(str(tmp_path / "model.dq"), engine="torch")
    assert loaded.generate(TEXTS) == expected
    assert len(set(expected)) > 1
    assert loaded.generate([]) == []


def test_a_text_that_is_too_long_loses_its_end(runtime):
    sources = runtime.texts.encode(["cdef", "c", "cde"])
    assert [source.cut for source in sources] == [True, False, False]
    assert [len(source.token_ids) for source in sources] == [6, 4, 6]
    assert sources[0].token_ids[:5] == sources[2].token_ids[:5]
    assert {source.token_ids[-1] for source in sources} == {2}  # the end mark stays


def test_threads_share_a_tokenizer(packed_texts, monkeypatch):
    texts = load(packed_texts, engine="torch").texts
    change = texts.tokenizer.set_truncation_and_padding

    def slow_change(*given, **options):
        change(*given, **options)
        time.sleep(0.005)  # another thread's turn, just where it would do harm

    monkeypatch.setattr(texts.tokenizer, "set_truncation_and_padding", slow_change)
    given = ["c", "cdef" * 9]
    expected = texts.encode(given)
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(texts.encode, [given] * 12)) == [expected] * 12


def test_neighbours_change_nothing(runtime):
    for settings in ({}, {"do_sample": True, "num_beams": 1, "num_return_sequences": 2}):
        alone = [runtime.generate([text], **settings) for text in TEXTS]
        assert runtime.generate(TEXTS, **settings) == [own for few in alone for own in few]


@pytest.mark.parametrize("kind", [torch.tensor, np.array])
def test_ids_may_be_tensors_and_arrays(kind, runtime):
    rows = [[5, 6, 2], [7, 8, 2]]
    expected = runtime.generate_ids(rows)
    assert runtime.generate_ids(kind(rows)) == expected
    assert runtime.generate_ids([kind(row) for row in rows]) == expected
    assert runtime.generate_ids([list(kind(row)) for row in rows]) == expected
    assert runtime.generate_ids(kind([])) == []


def test_scores_are_asked_for_where_they_are_returned(runtime, monkeypatch):
    asked = []
    generate = runtime.engine.model.generate

    def recorded(*, generation_config, **options):
        asked.append(generation_config.output_scores)
        return generate(generation_config=generation_config, **options)

    monkeypatch.setattr(runtime.engine.model, "generate", recorded)
    runtime.generate(TEXTS[:1])
    [without] = runtime.generate_ids([[5, 6, 2]], scores=False)
    [scored] = runtime.generate_ids([[5, 6, 2]])
    [greedy] = runtime.generate_ids([[5, 6, 2]], num_beams=1)
    assert asked == [False, False, True, False]
    assert without.token_ids == scored.token_ids
    assert without.score is greedy.score is None
    assert scored.score < 0


def test_sources_are_marked_with_their_language(packed, student):
    tokenizer = NllbTokenizer(vocab={"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "▁fox": 4})
    text = {"source_language": "ron_Latn", "target_language": "deu_Latn"}
    texts = texts_of(packed(student("m2m100"), text=text, files=tokenizer_files(tokenizer)))
    code = tokenizer.convert_tokens_to_ids("ron_Latn")
    assert texts.encode(["fox"])[0].token_ids == [code, 3, 2]
    assert texts.decode([[2, code, 4, 2]]) == ["fox"]


def test_a_seed_decides_the_draws_and_nothing_else(runtime):
    before = torch.random.get_rng_state()
    draw = {"do_sample": True, "num_beams": 1, "temperature": 2.0}
    first = runtime.generate(TEXTS, seed=1, **draw)
    assert first == runtime.generate(TEXTS, seed=1, **draw)
    assert first != runtime.generate(TEXTS, seed=2, **draw)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_threads_are_set_for_one_call(packed_texts):
    before = torch.get_num_threads()
    two = load(packed_texts, engine="torch", threads=2)
    seen = []
    two.engine.model.register_forward_pre_hook(lambda *_: seen.append(torch.get_num_threads()))
    two.generate(TEXTS[:1])
    assert set(seen) == {2}
    assert torch.get_num_threads() == before


class Native:
    """Stands in for the native engine."""

    resident_bytes = 7

    def __init__(self, student, threads=None):
        if threads == 99:
            raise NativeBuildError("no compiler was found; install g++.")
        self.threads = threads


def test_auto_is_native_and_else_torch_with_the_reason(packed_texts, capsys, monkeypatch):
    monkeypatch.setattr(native, "NativeEngine", Native)
    chosen = load(packed_texts, threads=3)
    assert (chosen.engine_name, chosen.engine.threads, chosen.resident_bytes) == ("native", 3, 7)
    assert capsys.readouterr().err == ""
    assert load(packed_texts, threads=99).engine_name == "torch"
    reason = "no compiler was found; install g++."
    assert capsys.readouterr().err == f"The torch engine runs this student: {reason}\n"
    with pytest.raises(ValueError, match="no compiler"):
        load(packed_texts, engine="native", threads=99)
    assert load(packed_texts, engine="torch").engine_name == "torch"


def test_the_native_engine_gives_the_same_texts(packed_texts, runtime):
    assert load(packed_texts).generate(TEXTS) == runtime.generate(TEXTS)


def test_a_recipe_without_kernels_goes_to_torch(student, packed, capsys):
    asked = load(packed(student("bart", "quant=dq_bart")))
    assert asked.engine_name == "torch"
    err = capsys.readouterr().err
    assert err.startswith("The torch engine runs this student: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"engine": "fast"}, "engine='fast' is unknown; write auto, native or torch."),
        ({"threads": 0}, "threads=0 cannot be; write 1 or more."),
        ({"engine": "native", "device": "cuda"}, "write engine=torch with device='cuda'."),
        ({"device": "cuda:7"}, "device=cuda:7 cannot be used here; write device=cpu."),
        ({"device": "fpga"}, "device=fpga cannot be used here"),
    ],
)
def test_a_wrong_option_is_one_sentence(options, sentence, packed_texts):
    with pytest.raises(ValueError) as raised:
        load(packed_texts, **options)
    assert sentence in str(raised.value)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda r: r.generate("text"), "generate takes a list of texts; write generate([text])"),
        (lambda r: r.generate(["a"], beams=2), "beams is unknown; the known ones"),
        (lambda r: r.generate(["a"], max_new_tokens=65), "max_length=66 (start token included) is"),
        (lambda r: r.generate_ids([[5, 2], []]), "sources[1] is empty"),
        (lambda r: r.generate_ids([[5, 70]]), "sources[0] has the token id 70; the student's go"),
        (lambda r: r.generate_ids([5, 2]), "sources[0] cannot be; write a list of integers."),
        (lambda r: r.generate_ids(["word"]), "sources[0] cannot be; write a list of integers."),
        (lambda r: r.generate_ids(torch.tensor([[5.5, 2.0]])), "sources[0] cannot be; write a"),
        (lambda r: r.generate_ids([[-1]]), "sources[0] has the token id -1"),
        (lambda r: r.generate_ids([[5] * 65]), "has 65 tokens; the student has 64 positions"),
    ],
)
def test_a_wrong_call_is_one_sentence(call, sentence, runtime):
    with pytest.raises(ValueError) as raised:
        call(runtime)
    assert sentence in str(raised.value)


def test_all_positions_can_be_used(runtime):
    [generation] = runtime.generate_ids([[5] * 64], min_new_tokens=64, max_new_tokens=64)
    assert len(generation.token_ids) == 64


def test_a_student_without_a_tokenizer_generates_from_ids(model, packed):
    runtime = load(packed(model), engine="torch")
    assert len(runtime.generate_ids([[5, 6, 2]], max_new_tokens=3)) == 1
    with pytest.raises(ValueError, match="holds no readable tokenizer; use generate_ids"):
        runtime.generate(["a"])


def test_a_file_that_cannot_be_read_is_one_sentence(tmp_path):
    (tmp_path / "model.dq").write_bytes(b"no student at all")
    for name in ("model.dq", "missing.dq"):
        with pytest.raises(ValueError, match=name):
            load(tmp_path / name)


def test_loading_needs_no_training_libraries(packed_texts, tmp_path):
    write_packed(tmp_path / "model.dq", packed_texts)
    code = (
        "import sys\n"
        "import dq_lightning.runtime, dq_lightning.runtime.settings\n"
        "assert 'torch' not in sys.modules\n"
        "from dq_lightning.runtime import load\n"
        f"print(load({str(tmp_path / 'model.dq')!r}, engine='torch').generate(['word']))\n"
        "from dq_lightning.runtime import load as again\n"
        "assert again is load and callable(load)\n"
        "for name in ('hydra', 'omegaconf', 'pytorch_lightning', 'datasets', 'wandb'):\n"
        "    assert name not in sys.modules, name\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_the_package_offers_load_alone():
    assert dq_lightning.runtime.__all__ == ["Runtime", "load"]
    with pytest.raises(AttributeError, match="has no attribute 'save'"):
        _ = dq_lightning.runtime.save
