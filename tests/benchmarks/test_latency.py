"""The latency benchmark: what it counts, what it keeps, and that all contenders say the same."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from transformers import BartConfig, BartForConditionalGeneration

from dq_lightning.artifacts.packed_file import read_packed, write_packed
from dq_lightning.artifacts.packed_student import pack_student
from dq_lightning.artifacts.tokenizer_files import tokenizer_files
from dq_lightning.benchmarks import latency, latency_run
from dq_lightning.benchmarks.contender import OURS, Contender, loader_of, opponents
from dq_lightning.benchmarks.latency import Cell, cell_record, grid, measure
from dq_lightning.benchmarks.latency_command import main
from dq_lightning.benchmarks.latency_record import LatencyRecord, headline
from dq_lightning.benchmarks.latency_subject import of_file, random_sources, text_sources
from dq_lightning.data.g2p_tokenizer import build_g2p_tokenizer
from dq_lightning.models.bart import FAMILY
from dq_lightning.quantization.prepare import prepare
from dq_lightning.quantization.recipe import QuantizationRecipe
from dq_lightning.quantization.ternary import ternary_or_symmetric

ROOT = Path(__file__).parents[2]
SIZES = {
    "vocab_size": 53, "d_model": 24, "encoder_layers": 2, "decoder_layers": 2,
    "encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 26,
    "decoder_ffn_dim": 26, "max_position_embeddings": 64, "init_std": 0.3,
}  # fmt: skip
WEIGHTS_ALONE = QuantizationRecipe(
    weight=lambda: ternary_or_symmetric(4, "per_row"),
    embedding=None,
    activation=None,
    attention=None,
)
SMALL = ["--batch", "1,2", "--beams", "1,3", "--tokens", "5", "--source-length", "7"]
SMALL += ["--threads", "1", "--repeats", "2", "--engine", "torch"]
"""Of a grid of four cells."""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A packed file of a tiny student without activation quantizers: all runtimes agree on it."""
    torch.manual_seed(3)
    student = BartForConditionalGeneration(BartConfig(**SIZES)).eval()
    prepare(student, WEIGHTS_ALONE, FAMILY)
    file = tmp_path_factory.mktemp("packed") / "model.dq"
    write_packed(file, pack_student(student, FAMILY))
    return file


def record_of(file):
    return json.loads(file.read_text(encoding="utf-8"))


class Clocked:
    """Contenders that take the durations given, on a clock of their own."""

    def __init__(self, monkeypatch):
        self.now, self.calls = 0.0, []
        monkeypatch.setattr("time.perf_counter", lambda: self.now)

    def contender(self, name, *durations, tokens=None):
        rest = iter(durations)

        def generate(sources, beams, length):
            self.calls.append((name, len(sources), beams, length))
            self.now += next(rest)
            return [[0] * (tokens or length)] * len(sources)

        return Contender(name, generate, None, None, None)


CELL = Cell(threads=1, batch=2, beams=4, tokens=60)


def test_in_turns_after_a_short_warm_up(monkeypatch):
    clock = Clocked(monkeypatch)
    contenders = {OURS: clock.contender(OURS, 9, 1, 2), "hf": clock.contender("hf", 9, 3, 4)}
    assert measure(contenders, [[5]], CELL, 2) == {OURS: [1, 2], "hf": [3, 4]}
    warm, timed = (2, 4, latency.WARM_UP_TOKENS), (2, 4, 60)
    assert clock.calls == [(OURS, *warm), ("hf", *warm)] + 2 * [(OURS, *timed), ("hf", *timed)]


def test_a_slow_opponent_runs_once(monkeypatch):
    clock = Clocked(monkeypatch)
    contenders = {OURS: clock.contender(OURS, 1, 30, 30, 30), "hf": clock.contender("hf", 1, 21)}
    assert measure(contenders, [[5]], CELL, 3) == {OURS: [30, 30, 30], "hf": [21]}


def test_a_text_of_another_length_is_refused(monkeypatch):
    clock = Clocked(monkeypatch)
    contenders = {OURS: clock.contender(OURS, 1, 1), "hf": clock.contender("hf", 1, 1, tokens=59)}
    with pytest.raises(ValueError, match=r"hf gave 2 texts of \[59\] tokens instead of 2 of 60"):
        measure(contenders, [[5]], CELL, 1)


def test_medians_speeds_and_ratios():
    cell = cell_record(CELL, {OURS: [1.0, 3.0, 2.0], "hf": [8.0, 9.0, 1.0]})
    assert cell["contenders"][OURS] == {
        "seconds": 2.0, "runs": [1.0, 3.0, 2.0], "tokens_per_second": 60.0
    }  # fmt: skip
    assert cell["speedup"] == {"hf": 4.0}


def test_the_headline_comes_first_and_at_the_machines_threads(monkeypatch):
    cells = grid([1, 2], [1, 8], [1, 4], [60, 142])
    assert len(set(cells)) == 16
    assert [cells[0], cells[8]] == [Cell(1, 1, 4, 60), Cell(2, 1, 4, 60)]
    measured = [
        cell_record(Cell(threads, 1, 4, 60), {OURS: [1.0], "hf": [10.0 * threads]})
        for threads in (1, 2)
    ]
    monkeypatch.setattr("dq_lightning.benchmarks.latency_record.usable_threads", lambda: 1)
    assert headline(measured) == {
        "headline": {"batch": 1, "beams": 4, "tokens": 60, "threads": 1},
        "speedup_vs_hf": 10.0,
        "speedup_vs_hf_by_threads": {"1": 10.0, "2": 20.0},
    }
    monkeypatch.setattr("dq_lightning.benchmarks.latency_record.usable_threads", lambda: 64)
    assert headline(measured)["speedup_vs_hf"] == 20.0
    assert headline([cell_record(CELL, {OURS: [1.0]})]) == {}


def test_every_opponent_gives_the_same_tokens(model, tmp_path):
    """Weights alone are quantized, so only the order of sums differs, and int8 activations."""
    assert opponents() == ["ctranslate2", "hf", "onnxruntime"]
    subject = of_file(model, None, tmp_path, "torch")
    sources = [*random_sources(subject.student, 2, 7, 0), [5, 9, 2]]
    for beams in (1, 3):
        texts = {
            name: loader_of(name)(subject, 1).generate(sources, beams, 6)
            for name in (OURS, "hf", "onnxruntime", "ctranslate2")
        }
        assert texts[OURS] == texts["hf"]
        assert [len(text) for text in texts["onnxruntime"]] == [6, 6, 6]
        assert [len(text) for text in texts["ctranslate2"]] == [6, 6, 6]


def test_all_opponents_in_one_table(model, tmp_path, capsys):
    file = tmp_path / "out.json"
    against = ["--against", "hf,ctranslate2,onnxruntime"]
    main([str(model), *SMALL, "--beams", "4", "--tokens", "60", *against, "--json", str(file)])
    record, output = record_of(file), capsys.readouterr()
    assert {(cell["batch"], cell["beams"]) for cell in record["cells"]} == {(1, 4), (2, 4)}
    for name in against[1].split(","):
        assert record[f"speedup_vs_{name}"] == record[f"speedup_vs_{name}_by_threads"]["1"] > 0
    ours = record["contenders"][OURS]
    assert ours["stored_bytes"] == model.stat().st_size
    assert ours["resident_bytes"] > 0 and ours["load_seconds"]["1"] > 0
    assert record["contenders"]["hf"]["description"].startswith("the same student, dequantized")
    assert record["environment"]["packages"].keys() >= {"torch", "ctranslate2", "onnxruntime"}
    assert {"git_sha", "processor", "cpu_count", "seed"} <= record["environment"].keys()
    assert re.search(
        r"batch 2, beam 4, 60 tokens, 1 thread +\d+\.\d +\d+\.\d \(\d+\.\dx\)", output.out
    )
    assert "[2/2] batch 2, beam 4, 60 tokens, 1 thread: dq_lightning " in output.err


def test_a_killed_benchmark_goes_on(model, tmp_path, monkeypatch, capsys):
    file, measured = tmp_path / "out.json", []

    def killed(contenders, sources, cell, repeats):
        if len(measured) == 2:
            raise KeyboardInterrupt
        measured.append(cell)
        return {name: [1.0] * repeats for name in contenders}

    monkeypatch.setattr(latency_run, "measure", killed)
    arguments = [str(model), *SMALL, "--json", str(file)]
    with pytest.raises(SystemExit):
        main(arguments)
    assert len(record_of(file)["cells"]) == 2
    monkeypatch.setattr(latency_run, "measure", lambda c, s, cell, r: (
        measured.append(cell), {name: [2.0] * r for name in c})[1])  # fmt: skip
    main(arguments)
    assert len(measured) == len(set(measured)) == len(record_of(file)["cells"]) == 4
    seconds = [cell["contenders"]["hf"]["seconds"] for cell in record_of(file)["cells"]]
    assert seconds == [1.0, 1.0, 2.0, 2.0]
    main(arguments)
    assert len(measured) == 4
    with pytest.raises(SystemExit):
        main([*arguments, "--source-length", "9"])
    assert (
        "was measured with source_length=7, and this is source_length=9" in capsys.readouterr().err
    )
    file.write_text("{}")
    with pytest.raises(ValueError, match="is no record of this benchmark"):
        LatencyRecord(file, {})


def test_a_shape(tmp_path, monkeypatch):
    """Random weights of a tiny shape; the teacher has all layers, the student its own."""
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    shape = {"path": None, "revision": None, "config": {"model_type": "bart", **SIZES}}
    (tmp_path / "conf" / "teacher" / "tiny.yaml").write_text(json.dumps(shape))
    monkeypatch.chdir(tmp_path)
    quick = ["--quick", "--tokens", "60", "--json", "out.json"]
    main(["--shape", "tiny", "--layers", "1-1", *SMALL, *quick])
    record = record_of(tmp_path / "out.json")
    assert len(record["cells"]) == 1 and record["speedup_vs_hf"] > 0
    assert record["contenders"]["hf"]["description"].startswith("teacher 2-2, float32")
    assert {"shape": "tiny", "bits": "2-2-8", "layers": "1-1"}.items() <= record["settings"].items()
    monkeypatch.chdir("/")
    with pytest.raises(SystemExit):
        main(["--shape", "tiny", *SMALL])


def test_texts_of_a_file(tmp_path, capsys):
    """In the student's own tokens, of several lengths."""
    tokenizer = build_g2p_tokenizer()
    student = BartForConditionalGeneration(BartConfig(**SIZES | {"vocab_size": len(tokenizer)}))
    prepare(student.eval(), WEIGHTS_ALONE, FAMILY)
    model, texts = tmp_path / "model.dq", tmp_path / "texts.txt"
    write_packed(model, pack_student(student, FAMILY, files=tokenizer_files(tokenizer)))
    texts.write_text("cat\n\nknowledge\n")
    arguments = ["--sources", str(texts), "--batch", "2", "--teacher", str(tmp_path / "teacher")]
    student.save_pretrained(tmp_path / "teacher")
    for _ in range(2):  # the second finds every cell
        main([str(model), *SMALL, *arguments, "--json", str(tmp_path / "out.json")])
        assert "hf: teacher 2-2, float32" in capsys.readouterr().out
    assert [len(s) for s in text_sources(read_packed(model), texts, 8, 7)] == [4, 7]
    (tmp_path / "teacher" / "README.md").write_text("a card decides nothing")
    main([str(model), *SMALL, *arguments, "--json", str(tmp_path / "out.json")])
    for key, file, content in (
        ("sources_sha256", texts, "dog\n"),
        ("teacher_sha256", tmp_path / "teacher" / "config.json", None),
    ):
        before = file.read_text()
        file.write_text(content or before + "\n")
        capsys.readouterr()
        with pytest.raises(SystemExit):
            main([str(model), *SMALL, *arguments, "--json", str(tmp_path / "out.json")])
        assert re.search(rf"was measured with {key}=\w{{16}}, and this is", capsys.readouterr().err)
        file.write_text(before)
    texts.write_text("\n")
    with pytest.raises(SystemExit):
        main([str(model), *SMALL, *arguments])
    assert "has no text; write one a line" in capsys.readouterr().err


def test_lengths_fit_the_student(model, tmp_path):
    """Its 64 positions: 512 and 142 tokens would be too many."""
    file, rest = tmp_path / "out.json", ["--threads", "1", "--repeats", "1", "--beams", "1"]
    main([str(model), *rest, "--batch", "1", "--against", "", "--json", str(file)])
    record = record_of(file)
    assert [cell["tokens"] for cell in record["cells"]] == [60, 64]
    assert record["settings"]["source_length"] == 64


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--against", "hf,tgi"], "--against tgi is unknown; write some of ctranslate2,hf"),
        (["--sources", "nowhere.txt"], "No such file or directory: nowhere.txt"),
        (["--teacher", "./nowhere"], "nowhere"),
    ],
)
def test_mistakes_are_one_sentence(arguments, message, model, capsys):
    with pytest.raises(SystemExit):
        main([str(model), *SMALL, *arguments])
    assert message in capsys.readouterr().err
