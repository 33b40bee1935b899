"""Committed figures are the records' figures: no table of a README is typed by hand."""

import json
import re
from pathlib import Path

import pytest

from dq_lightning.reporting.records import (
    read_recipes,
    read_records,
    recipes_table,
    records_table,
)

ROOT = Path(__file__).parents[2]
TEACHER = ROOT / "dq_lightning/models/pretrained/g2p/training.json"
G2P = ROOT / "experiments/g2p"
RUNS = [TEACHER, G2P / "default.json", G2P / "g2p_full.json", G2P / "grid"]


@pytest.mark.parametrize("page", [ROOT / "README.md", G2P / "README.md"])
def test_a_results_table_is_what_the_records_say(page):
    text = page.read_text(encoding="utf-8")
    results = re.search(r"<!-- results:start -->\n(.*?)<!-- results:end -->", text, re.DOTALL)
    assert results is not None
    assert results[1].strip() == records_table(read_records(RUNS))


@pytest.mark.parametrize("name", ["recipes", "ablation"])
def test_a_comparison_is_what_its_records_say(name):
    text = (G2P / "README.md").read_text(encoding="utf-8")
    table = re.search(rf"<!-- {name}:start -->\n(.*?)<!-- {name}:end -->", text, re.DOTALL)
    assert table is not None
    assert table[1].strip() == recipes_table(read_recipes(G2P / name))


def test_records_name_no_path_of_the_machine_they_were_made_on():
    for file in [TEACHER, *G2P.rglob("*.json")]:
        text = file.read_text(encoding="utf-8")
        assert not re.search(r'"(/[a-z]+)+', text), file
        record = json.loads(text)
        assert record["environment"]["git_dirty"] is False
        assert record["metrics"]["run"]["device"]


def test_the_shipped_teacher_is_within_its_bars():
    record = json.loads(TEACHER.read_text(encoding="utf-8"))
    scores = record["metrics"]["student"]
    assert scores["per"] <= 8.0 and scores["wer"] <= 34.0
    assert (TEACHER.parent / "model.safetensors").stat().st_size <= 6_000_000


def test_a_folder_is_sorted_by_bits_and_layers(tmp_path):
    def record(weight_bits, layers):
        name = f"{weight_bits}-{weight_bits}-8 {layers}-{layers}"
        cell = {"name": name, "weight_bits": weight_bits, "encoder_layers": layers}
        return {
            "seconds": 90.0,
            "metrics": {
                "cell": cell,
                "primary_metric": "wer",
                "student": {"per": 5.0, "wer": 25.0},
                "drop": {"wer": 1.0},
                "run": {"steps": 10},
                "bytes": {"student_nominal": 1000, "ratio": 4.0},
            },
        }

    found = [record(bits, layers) for bits, layers in [(8, 1), (2, 6), (2, 3)]]
    for number, made in enumerate(found):
        (tmp_path / f"{number}.json").write_text(json.dumps(made))
    rows = records_table(read_records([tmp_path])).splitlines()
    assert [row.split(" | ")[0] for row in rows[2:]] == [
        "| 2-2-8 3-3",
        "| 2-2-8 6-6",
        "| 8-8-8 1-1",
    ]
    assert rows[2] == "| 2-2-8 3-3 | 10 | 25.00 | +1.00 | 5.00 | - | 1,000 | 4.00x | 1.5 |"
    found[2]["metrics"]["bytes"] |= {"stored": 987_654, "stored_ratio": 12.5}
    head, _, first, *_, last = records_table(found[::-1]).splitlines()
    assert head.endswith("| nominal bytes | ratio | bytes on disk (ratio) | minutes |")
    assert first.endswith("| 1,000 | 4.00x | 987,654 (12.5x) | 1.5 |")
    assert last.endswith("| 1,000 | 4.00x | - | 1.5 |")
