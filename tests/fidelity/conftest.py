"""The folder of reference vectors: `pytest tests/fidelity --oracles DIR`; absent, tests skip."""

import json
from pathlib import Path

import pytest

def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that takes `oracle_student` once for every student file of the folder."""
    if "oracle_student" not in metafunc.fixturenames:
        return
    folder = metafunc.config.getoption("--oracles")
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
