"""The folder of reference vectors: `pytest tests/fidelity --oracles DIR`; absent, tests skip."""

import json
from pathlib import Path

import pytest

DEFAULT = Path(__file__).parents[3] / "shared" / "oracles"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--oracles",
        type=Path,
        default=DEFAULT,
        help="folder of DQ-BART reference vectors (default: ../shared/oracles beside the checkout)",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that takes `oracle_student` once for every student file of the folder."""
    if "oracle_student" not in metafunc.fixturenames:
        return
    # Collected from above, this file is read after the command line: then there is the default.
    folder = Path(metafunc.config.getoption("--oracles", DEFAULT))
    index = folder / "models_index.json"
    if index.is_file():
        groups = json.loads(index.read_text(encoding="utf-8"))
        found = [
            pytest.param((folder, group, entry), id=Path(entry["file"]).stem)
            for group, entries in groups.items()
            for entry in entries
        ]
    else:
        reason = f"no reference vectors in {folder}: give a folder with --oracles DIR"
        found = [pytest.param(None, marks=pytest.mark.skip(reason), id="absent")]
    metafunc.parametrize("oracle_student", found)
