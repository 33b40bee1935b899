"""Tests run offline, on one thread, and leave only the built engine outside a temporary folder."""

import itertools
import os
import runpy
import sys
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

# Before any import of the libraries, which read these once; child processes inherit them.
_SESSION = tempfile.TemporaryDirectory(prefix="dq_lightning_tests_")
os.environ |= {
    "DQ_LIGHTNING_CACHE": os.path.join(_SESSION.name, "cache"),
    "HF_HOME": os.path.join(_SESSION.name, "huggingface"),
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "WANDB_MODE": "offline",
    "WANDB_SILENT": "true",
    "TOKENIZERS_PARALLELISM": "false",
}
os.environ.pop("WANDB_API_KEY", None)  # a developer's key must not upload test runs
os.environ.pop("HYDRA_FULL_ERROR", None)  # tests of error messages expect one sentence

import pytest  # noqa: E402
import torch  # noqa: E402
from absl import logging as absl_logging  # noqa: E402

torch.set_num_threads(1)  # tiny tensors: more threads only wait for each other

# Hydra's logging set-up closes every handler, and absl's (it comes with rouge-score) closes the
# stream it was born with unless that is the process's own: here, pytest's captured stderr.
absl_logging.get_absl_handler().python_handler.stream = sys.__stderr__

ROOT = Path(__file__).parents[1]
ORACLES = ROOT.parent / "shared" / "oracles"
SOUNDS = dict(zip("aeioubdfgkmst", "AE EH IH AA AH B D F G K M S T".split(), strict=True))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--oracles",
        type=Path,
        default=ORACLES,
        help="folder of DQ-BART reference vectors (default: ../shared/oracles beside the checkout)",
    )


@dataclass(frozen=True)
class TinyTask:
    """A random teacher of 2-2 layers, and a dictionary in which each letter has one sound."""

    teacher: Path
    dictionary: Path

    @property
    def words(self) -> list[str]:
        """What makes a command a run of seconds on it."""
        here = [f"teacher.path={self.teacher}", f"data.path={self.dictionary}"]
        return ["debug=fast", "trainer.accelerator=cpu", *here]

    def said(self, word: str) -> str:
        return " ".join(SOUNDS[letter] for letter in word)


@pytest.fixture(scope="session")
def tiny_task(tmp_path_factory: pytest.TempPathFactory) -> TinyTask:
    from dq_lightning.data.g2p_tokenizer import build_g2p_tokenizer
    from dq_lightning.models import bart
    from dq_lightning.models.student import student_from_scratch

    folder = tmp_path_factory.mktemp("tiny")
    task = TinyTask(folder / "teacher", folder / "words.dict")
    torch.manual_seed(0)
    tokenizer = build_g2p_tokenizer()
    sizes = {
        "d_model": 16, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
        "encoder_ffn_dim": 24, "decoder_ffn_dim": 24, "max_position_embeddings": 64,
        "decoder_start_token_id": 1, "forced_eos_token_id": None, "init_std": 0.5,
    }  # fmt: skip
    student_from_scratch(bart.FAMILY, tokenizer, 2, 2, sizes).save_pretrained(task.teacher)
    tokenizer.save_pretrained(task.teacher)
    words = map("".join, itertools.product("bdfgkmst", "aeiou", "bdgkt", "aeo"))
    task.dictionary.write_text("".join(f"{word} {task.said(word)}\n" for word in words))
    return task


@pytest.fixture(scope="session")
def train() -> Callable[..., int]:
    """The exit code of `python train.py <arguments>`, run without the start of a new process."""

    def command(*arguments: str, **env: str) -> int:
        argv = [str(ROOT / "train.py"), *arguments]
        argv += ["hydra/job_logging=none", "hydra/hydra_logging=none"]
        environment, words = mock.patch.dict(os.environ, env), mock.patch.object(sys, "argv", argv)
        with environment, words, warnings.catch_warnings():
            try:
                runpy.run_path(argv[0], run_name="__main__")
            except SystemExit as leaving:
                return int(leaving.code or 0)
            finally:
                torch.use_deterministic_algorithms(False)
        return 0

    return command
