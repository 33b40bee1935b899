"""Every wrong input ends the command at once, in one sentence that says what to write instead."""

import itertools
import json
import logging
import lzma
import os
import runpy
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import pytorch_lightning as pl
import torch
import yaml

from dq_lightning.data.g2p_tokenizer import build_g2p_tokenizer
from dq_lightning.errors import FULL_ERROR, HINT
from dq_lightning.models import bart
from dq_lightning.models.student import student_from_scratch

ROOT = Path(__file__).parent.parent
HYDRAS = "Error executing job with overrides: "
PAIRS = [{"document": f"bad dog {row}", "summary": f"dog {row}"} for row in range(20)]
BASE = [
    "teacher.path={folder}/teacher",
    "paths.cache={folder}/cache",
    "paths.runs={folder}/runs",
    "hydra.run.dir={folder}/runs/here",
    "trainer.accelerator=cpu",
    "student.layers=2-1",
    "logger=csv",
    "debug=fast",
]
WORDS = [*BASE, "data.path={folder}/words.dict"]
FILES = [
    *BASE,
    "data=jsonl",
    "data.source=document",
    "data.target=summary",
    "data.train={folder}/good.jsonl",
    "data.validation={folder}/good.jsonl",
    "data.test={folder}/good.jsonl",
]


@dataclass(frozen=True)
class Case:
    """Arguments, and what the sentence must hold: the key, the value, what to write instead."""

    arguments: list[str]
    key: str
    value: str
    remedy: str


STARTS = {"base": BASE, "words": WORDS, "files": FILES, "teacherless": WORDS[1:]}
CASES = {
    name: Case([*STARTS[case.pop("with")], *case.pop("arguments")], **case)
    for name, case in yaml.safe_load(Path(__file__).with_name("bad_input.yaml").read_text()).items()
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny task and its spoilt copies."""
    folder = tmp_path_factory.mktemp("inputs")
    save_teachers(folder)
    words = ("".join(letters) for letters in itertools.product("bdgkmt", "aeiou", "bdgkmt"))
    (folder / "words.dict").write_text("".join(f"{word} B AA D\n" for word in words))
    good = "".join(json.dumps(pair) + "\n" for pair in PAIRS)
    (folder / "good.jsonl").write_text(good)
    (folder / "empty.jsonl").touch()
    (folder / "cut.jsonl.xz").write_bytes(lzma.compress(good.encode())[:-30])
    (folder / "text.jsonl.xz").write_text(good)
    untold = [*PAIRS[:3], {"document": "dog", "summary": None}, *PAIRS[3:]]
    (folder / "untold.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in untold))
    return folder


def save_teachers(folder: Path) -> None:
    torch.manual_seed(0)
    sizes = {"d_model": 16, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    tokenizer = build_g2p_tokenizer()
    model = student_from_scratch(bart.FAMILY, tokenizer, 2, 2, sizes | heads)
    model.save_pretrained(folder / "teacher")
    tokenizer.save_pretrained(folder / "teacher")
    for name in ("weightless", "misfit"):
        shutil.copytree(folder / "teacher", folder / name)
    (folder / "weightless" / "model.safetensors").unlink()
    tokenizer.add_tokens(["QQ"])
    tokenizer.save_pretrained(folder / "misfit")


@dataclass(frozen=True)
class Ended:
    """How a command ended. Until then it trained nothing: `fit` was out of order."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        """What it said, Hydra's own line aside."""
        return [line for line in self.err.splitlines() if not line.startswith(HYDRAS)]


@pytest.fixture
def command(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., Ended]]:
    """`python train.py <arguments>` in this process."""

    def fit(*arguments: Any, **named: Any) -> None:
        raise AssertionError("it trained")

    def run(*arguments: str) -> Ended:
        code = 0
        monkeypatch.setattr(
            sys, "argv", [str(ROOT / "train.py"), *(a.format(folder=folder) for a in arguments)]
        )
        try:
            with warnings.catch_warnings(), mock.patch.dict(os.environ):
                runpy.run_path(sys.argv[0], run_name="__main__")
        except SystemExit as leaving:
            code = int(leaving.code or 0)
        return Ended(code, *capsys.readouterr())

    monkeypatch.setattr(pl.Trainer, "fit", fit)
    handlers, level = list(logging.root.handlers), logging.root.level
    yield run
    for handler in set(logging.root.handlers) - set(handlers):
        logging.root.removeHandler(handler)
        if isinstance(handler, logging.FileHandler):  # absl would close our stderr
            handler.close()
    logging.root.setLevel(level)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_one_sentence_names_key_value_and_remedy(
    command: Callable[..., Ended], case: Case, folder: Path
) -> None:
    ended = command(*case.arguments)
    assert ended.code == 1
    sentence, hint = ended.lines
    for part in (case.key, case.value, case.remedy):
        assert part in sentence
    assert sentence.endswith((".", "?"))
    assert len(sentence.replace(str(folder), "")) < 300
    assert hint == HINT


def test_the_good_arguments_would_train(command: Callable[..., Ended]) -> None:
    """So each case above fails for its own reason."""
    words, files = command(*WORDS), command(*FILES)
    assert words.lines[0].startswith("AssertionError: it trained (traceback in ")
    assert files.lines[0].startswith("AssertionError: it trained (traceback in ")


def test_hydra_adds_nothing(command: Callable[..., Ended]) -> None:
    assert HYDRAS not in command(*WORDS, "quant.bits=2-2").err


def test_a_library_adds_nothing(command: Callable[..., Ended]) -> None:
    assert command(*FILES, "data.train={folder}/empty.jsonl").out == ""


def test_the_user_may_have_the_traceback(
    command: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FULL_ERROR, "1")
    with pytest.raises(ValueError, match="such as 2-2-8") as raised:
        command(*WORDS, "quant.bits=2-2")
    assert "parse_bits" in [entry.name for entry in raised.traceback]


@pytest.mark.parametrize("full", [False, True], ids=["sentence", "traceback"])
def test_in_a_process_of_its_own(folder: Path, tmp_path: Path, full: bool) -> None:
    """As the README has it: nothing but the wrong key is written."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "train.py"), "quant.bits=2-2", f"hydra.run.dir={tmp_path}"],
        cwd=folder,
        env=os.environ | ({FULL_ERROR: "1"} if full else {}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert "quant.bits='2-2' is not a bit-width; write" in done.stderr
    assert ("Traceback (most recent call last)" in done.stderr) == full
    assert (len(done.stderr.splitlines()) <= 3) != full
