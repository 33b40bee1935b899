"""Tests run offline, on one thread, and leave nothing behind outside a temporary folder."""

import os
import sys
import tempfile
from pathlib import Path

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

ORACLES = Path(__file__).parents[2] / "shared" / "oracles"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--oracles",
        type=Path,
        default=ORACLES,
        help="folder of DQ-BART reference vectors (default: ../shared/oracles beside the checkout)",
    )
