"""dq-generate: documents in, lines out, in order, whatever single lines hold."""

import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dq_lightning.artifacts.packed_file import write_packed
from dq_lightning.artifacts.tokenizer_files import tokenizer_files
from dq_lightning.data.g2p_tokenizer import build_g2p_tokenizer
from dq_lightning.runtime import documents, generate_command, load, loading
from dq_lightning.runtime.answering import Answering
from dq_lightning.runtime.documents import LineFormat, windows

WORDS = ["distillation", "a", "quantized", "to", "students", "be", "word of words", "c"]
# The command around a runtime that answers at once with the text in upper case.
STUB = """
import signal, sys, types
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
class Source:
    cut = False
    def __init__(self, text): self.token_ids = text
class Texts:
    def encode(self, texts): return [Source(text) for text in texts]
    def decode(self, rows): return [row.upper() for row in rows]
class Runtime:
    texts = Texts()
    def settings(self, **given): return types.SimpleNamespace(num_return_sequences=1)
    def generate_ids(self, sources, **given):
        return [types.SimpleNamespace(token_ids=source) for source in sources]
module = types.ModuleType("dq_lightning.runtime.loading")
module.Runtime, module.load = Runtime, lambda *given, **options: Runtime()
sys.modules[module.__name__] = module
from dq_lightning.runtime.generate_command import main
sys.exit(main(["model.dq", *sys.argv[1:]]))
"""


@pytest.fixture(scope="module")
def runtime(student, packed):
    text = {"max_source_length": 14, "source_prefix": ""}
    files = tokenizer_files(build_g2p_tokenizer())
    model = student("bart", "quant.bits=8")
    options = {"generation": {"max_new_tokens": 7}, "positions_bits": 32}
    return load(packed(model, text=text, files=files, **options), engine="torch")


@pytest.fixture
def generate(runtime, monkeypatch, capfdbinary, tmp_path):
    """Give a call of the command on some input: (exit status, stdout, stderr)."""
    monkeypatch.setattr(loading, "load", lambda *_, **__: runtime)

    def call(content: bytes, *arguments: str) -> tuple[int, bytes, str]:
        (tmp_path / "input").write_bytes(content)
        kept = os.dup(0)
        with (tmp_path / "input").open("rb") as stream:
            os.dup2(stream.fileno(), 0)
        try:
            status = generate_command.main(["model.dq", *arguments])
        finally:
            os.dup2(kept, 0)
            os.close(kept)
        out, err = capfdbinary.readouterr()
        return status, out, err.decode()

    return call


def lines(texts):
    return "".join(f"{text}\n" for text in texts).encode()


@pytest.mark.parametrize("batch_size", ["1", "3", "100"])
def test_one_line_a_document_in_order(batch_size, generate, runtime):
    words = WORDS * 4  # several windows of batches of one
    status, out, err = generate(lines(words), "--batch-size", batch_size, "--num-beams", "2")
    assert (status, out, err) == (0, lines(runtime.generate(words, num_beams=2)), "")


def test_json_lines_keep_their_other_fields(generate, runtime):
    rows = [{"id": 7, "body": word, "ß": ["x", None]} for word in WORDS]
    content = lines(json.dumps(row) for row in rows)
    status, out, err = generate(content, "--jsonl", "--field", "body")
    assert (status, err) == (0, "")
    expected = runtime.generate(WORDS)
    assert [json.loads(line) for line in out.splitlines()] == [
        {"id": 7, "ß": ["x", None], "generated": text} for text in expected
    ]
    assert "ß".encode() in out


def test_several_texts_a_document_need_json(generate, runtime):
    options = ("--num-beams", "2", "--num-return-sequences", "2")
    status, out, err = generate(b"word\n", *options)
    assert (status, out) == (2, b"")
    assert err.endswith("write --jsonl too.\n")
    _, out, _ = generate(b'{"text": "word"}\n', "--jsonl", *options)
    expected = runtime.generate(["word"], num_beams=2, num_return_sequences=2)
    assert json.loads(out) == {"generated": expected}


def test_a_bad_line_gives_an_empty_line_and_stops_nothing(generate, runtime):
    content = b"\xef\xbb\xbfword\r\nno\xff\n\n  \nto"  # mark of order, bad byte, blanks, no end
    status, out, err = generate(content)
    assert status == 1
    word, to = runtime.generate(["word", "to"])
    assert out == lines([word, "", "", "", to])
    assert err.startswith("line 2: no UTF-8 (")
    assert err.count("\n") == 1


def test_a_bad_json_line_gives_its_error(generate, runtime):
    bad = ['{"text": "wo', "[1]", '{"id": 4}', '{"text": 5}', '{"text": "\\ud800"}',
           '{"text": "a", "x": "\\ud800"}', "[" * 100_000]  # fmt: skip
    status, out, err = generate(lines([*bad, "", '{"text": "word"}']), "--jsonl")
    assert status == 1
    answers = out.decode().split("\n")
    assert json.loads(answers[0]) == {
        "error": "line 1: invalid JSON (Unterminated string starting at at column 10)"
    }
    assert json.loads(answers[1]) == {"error": "line 2: a JSON list, not an object"}
    missing = "line 3: no field 'text'; name another with --field"
    assert json.loads(answers[2]) == {"id": 4, "error": missing}
    assert "no text in the field 'text'" in json.loads(answers[3])["error"]
    assert "surrogates not allowed" in json.loads(answers[4])["error"]
    word, a = runtime.generate(["word", "a"])
    assert json.loads(answers[5]) == {"x": "\ud800", "generated": a}
    assert "recursion" in json.loads(answers[6])["error"]
    assert answers[7:] == ["", json.dumps({"generated": word}), ""]
    assert [line.partition(":")[0] for line in err.splitlines()] == [
        f"line {number}" for number in (1, 2, 3, 4, 5, 7)
    ]


def test_a_text_that_is_too_long_is_cut_with_a_note(generate, runtime):
    status, out, err = generate(b"word\n" + b"abcdefg" * 3 + b"\nto\n" + b"x" * 50 + b"\n")
    assert status == 0
    assert out == lines(runtime.generate(["word", "abcdefg" * 3, "to", "x" * 50]))
    assert err == (
        "line 2 is longer than 14 tokens: its end is left out\n"
        "2 documents were too long and lost their end\n"
    )


def test_a_line_without_an_end_is_an_error(generate, monkeypatch, runtime):
    monkeypatch.setattr(documents, "LONGEST_LINE", 10)
    status, out, err = generate(b"b" * 47 + b"\nword\n" + b"a" * 9 + b"\n")
    assert (status, err) == (1, "line 1: longer than 10 bytes\n")
    assert out == lines(["", *runtime.generate(["word", "a" * 9])])


def test_the_output_file_is_whole_or_untouched(generate, tmp_path, monkeypatch, runtime):
    target = tmp_path / "texts.txt"
    assert generate(lines(WORDS), "--output", str(target)) == (0, b"", "")
    written = target.read_bytes()
    assert written == lines(runtime.generate(WORDS))

    def interrupted(_self, _sources, **_settings):
        raise KeyboardInterrupt

    monkeypatch.setattr(loading.Runtime, "generate_ids", interrupted)
    assert generate(b"word\n", "--output", str(target)) == (130, b"", "")
    assert target.read_bytes() == written
    assert {path.name for path in tmp_path.iterdir()} == {"input", "texts.txt"}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--batch-size", "0"], "--batch-size 0 cannot be; write 1 or more."),
        (["--num-beams", "0"], "num_beams=0 cannot be; write an integer from 1 to 2147483647."),
        (["--early-stopping", "never", "--top-p", "7"], "top_p=7.0 cannot be"),
        (["--temperature", "0.3"], "temperature=0.3 would have no effect without do_sample=true."),
        (["--output", "/dev/null/texts"], "/dev/null"),
    ],
)
def test_a_wrong_option_is_one_sentence(arguments, sentence, generate):
    status, out, err = generate(b"word\n", *arguments)
    assert (status, out) == (2, b"")
    assert err.startswith("dq-generate: ")
    assert sentence in err
    assert err.count("\n") == 1


def test_every_setting_reaches_generate(generate, monkeypatch, runtime):
    seen = {}
    generate_ids = loading.Runtime.generate_ids

    def recorded(self, sources, **chosen):
        seen.update(chosen)
        return generate_ids(self, sources, **chosen)

    monkeypatch.setattr(loading.Runtime, "generate_ids", recorded)
    words = "--num-beams 4 --length-penalty 2 --early-stopping true --no-do-sample --eos-token-id 2"
    generate(b"word\n", *words.split(), "--bad-words-ids", "5", "6")
    assert seen == {
        "num_beams": 4, "length_penalty": 2.0, "early_stopping": True, "do_sample": False,
        "eos_token_id": [2], "bad_words_ids": [[5], [6]], "scores": False,
    }  # fmt: skip


@pytest.mark.parametrize("content", [None, b"no student"])
def test_a_model_that_cannot_be_read_is_one_sentence(content, tmp_path, capsys):
    model = tmp_path / "model.dq"
    if content is not None:
        model.write_bytes(content)
    assert generate_command.main([str(model)]) == 2
    err = capsys.readouterr().err
    assert str(model) in err
    assert err.count("\n") == 1


def test_the_file_itself_is_loaded(runtime, tmp_path, monkeypatch, capfdbinary):
    write_packed(tmp_path / "model.dq", runtime.student)
    read, write = os.pipe()
    os.write(write, b"word\n")
    os.close(write)
    kept = os.dup(0)
    os.dup2(read, 0)
    try:
        model = str(tmp_path / "model.dq")
        assert generate_command.main([model, "--engine", "torch", "--threads", "1"]) == 0
    finally:
        os.dup2(kept, 0)
    assert capfdbinary.readouterr().out == lines(runtime.generate(["word"]))


def test_the_first_document_is_generated_first(runtime, monkeypatch):
    window = [LineFormat().read(number, word.encode()) for number, word in enumerate(WORDS, 1)]
    calls = []
    generate_ids = runtime.generate_ids
    monkeypatch.setattr(runtime, "generate_ids", lambda s, **_: calls.append(s) or generate_ids(s))
    answering = Answering(runtime, LineFormat(), 3, print, lambda _: None)
    next(answering.lines([window]))
    assert len(calls) == 1
    assert runtime.texts.encode(WORDS[:1])[0].token_ids in calls[0]
    assert len({len(source) for source in calls[0]}) < 3  # those of like length together


def test_a_slow_writer_gets_its_answer_at_once(runtime):
    read, write = os.pipe()
    form = LineFormat()
    answering = Answering(runtime, form, 4, print, lambda _: None)
    answers = answering.lines(windows(os.fdopen(read, "rb"), form, 32))
    for word in WORDS[:3]:
        os.write(write, f"{word}\n".encode())
        assert next(answers) == f"{runtime.generate([word])[0]}\n"
    os.close(write)
    assert list(answers) == []


def stubbed(*arguments, **options):
    command = [sys.executable, "-c", STUB, *arguments]
    return subprocess.Popen(command, stdin=subprocess.PIPE, cwd=Path.cwd(), **options)


def test_an_interrupt_ends_quietly_while_input_is_awaited():
    process = stubbed(stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdin.write(b"word\n")
    process.stdin.flush()
    assert process.stdout.readline() == b"WORD\n"
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) == 130
    assert process.stdout.read() + process.stderr.read() == b""


def test_a_closed_pipe_ends_quietly():
    process = stubbed(stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdin.write(b"word\n")
    process.stdin.flush()
    assert process.stdout.readline() == b"WORD\n"
    process.stdout.close()
    process.stdin.write(b"more\n")
    process.stdin.flush()
    assert process.wait(timeout=30) == 141
    assert process.stderr.read() == b""


def test_a_terminal_shows_progress():
    ours, theirs = pty.openpty()
    process = stubbed(stdout=subprocess.PIPE, stderr=theirs, env={**os.environ, "TERM": "xterm"})
    out, _ = process.communicate(b"word\nno\xff\n", timeout=30)
    os.close(theirs)
    shown = b""
    while b"2 texts" not in shown:
        shown += os.read(ours, 4096)
    assert out == b"WORD\n\n"
    assert b"line 2: no UTF-8" in shown


def test_the_command_is_installed_under_its_name():
    project = (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    assert 'dq-generate = "dq_lightning.runtime.generate_command:main"' in project
