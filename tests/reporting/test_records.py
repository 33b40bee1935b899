"""Committed figures are the records' figures: no table of a README is typed by hand."""

import json
import re
from pathlib import Path

import pytest

from dq_lightning.reporting import latency_records, parity_records
from dq_lightning.reporting.latency_records import latency_table
from dq_lightning.reporting.parity_records import parity_table
from dq_lightning.reporting.records import (
    main,
    read_recipes,
    read_records,
    recipes_table,
    records_table,
)

ROOT = Path(__file__).parents[2]
TEACHER = ROOT / "dq_lightning/models/pretrained/g2p/training.json"
G2P = ROOT / "experiments/g2p"
PARITY = ROOT / "experiments/packed/parity"
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


def test_speed_and_parity_of_the_packed_file_are_what_the_records_say():
    folder = ROOT / "experiments/packed"
    text = (folder / "README.md").read_text(encoding="utf-8")
    made = {
        "latency": latency_table([folder / "latency"]),
        "parity": parity_table(read_records([folder / "parity"])),
    }
    for name, expected in made.items():
        table = re.search(rf"<!-- {name}:start -->\n(.*?)<!-- {name}:end -->", text, re.DOTALL)
        assert table is not None
        assert table[1].strip() == expected


def test_the_packed_file_is_the_student_within_the_bars():
    for record in read_records([ROOT / "experiments/packed/parity"]):
        packed = record["metrics"]["packed"]
        assert abs(packed["drop"]["wer"]) <= (0.1 if packed["positions_bits"] == 32 else 0.2)
        assert packed["identical"] >= (0.995 if packed["positions_bits"] == 32 else 0.99)


def test_a_latency_table_has_a_row_a_cell(tmp_path):
    cell = {"batch": 1, "beams": 4, "tokens": 60, "threads": 2, "speedup": {"hf": 20.0}}
    cell["contenders"] = {"dq_lightning": {"tokens_per_second": 1234.5}}
    later = {**cell, "beams": 1, "threads": 1}
    names = {"dq_lightning": {}, "hf": {}, "ctranslate2": {}}
    record = {"settings": {"bits": "2-2-8", "layers": "6-1"}, "contenders": names}
    (tmp_path / "a.json").write_text(json.dumps({**record, "cells": [cell, later]}))
    rows = [line.split("|")[1:-1] for line in latency_table([tmp_path]).splitlines()]
    assert [[field.strip() for field in row] for row in (rows[0], *rows[2:])] == [
        ["student", "cell", "tokens/s", "times hf", "times ctranslate2"],
        ["2-2-8 6-1", "batch 1, greedy, 60 tokens, 1 thread", "1,234", "20.0x", "-"],
        ["2-2-8 6-1", "batch 1, beam 4, 60 tokens, 2 threads", "1,234", "20.0x", "-"],
    ]


SHAPE = {"shape": "bart_base", "bits": "2-2-8", "layers": "6-1", "source_length": 512}
MODEL = {"model": "runs/one/model.dq", "sha256": "0123456789abcdef", "source_length": 64}


@pytest.mark.parametrize(
    ("settings", "students"),
    [
        ([MODEL], ["one/model.dq"]),
        ([SHAPE, SHAPE | {"bits": "8-8-8"}], ["2-2-8 6-1", "8-8-8 6-1"]),
        ([SHAPE, SHAPE | {"shape": "g2p"}], ["bart_base 2-2-8 6-1", "g2p 2-2-8 6-1"]),
        ([SHAPE, SHAPE | {"source_length": 64}], ["2-2-8 6-1 source 512", "2-2-8 6-1 source 64"]),
        (
            [MODEL, SHAPE | {"source_length": 64}, MODEL | {"model": "runs/two/model.dq"}],
            ["bart_base 2-2-8 6-1", "one/model.dq", "two/model.dq"],
        ),
        ([MODEL, MODEL | {"sha256": "f" * 16}], ["one/model.dq 01234567", "one/model.dq ffffffff"]),
    ],
)
def test_a_latency_table_tells_its_students_apart(settings, students, tmp_path):
    cell = {"batch": 1, "beams": 4, "tokens": 60, "threads": 2, "speedup": {}}
    cell["contenders"] = {"dq_lightning": {"tokens_per_second": 1.0}}
    for number, chosen in enumerate(settings):
        content = {"settings": chosen, "contenders": {"dq_lightning": {}}, "cells": [cell]}
        (tmp_path / f"{number}.json").write_text(json.dumps(content))
    rows = latency_table([tmp_path]).splitlines()[2:]
    assert [row.split("|")[1].strip() for row in rows] == students


def test_parity_is_of_the_records_that_have_a_packed_file():
    packed = {"bytes": 1234, "positions_bits": 8, "scores": {"per": 5.0, "wer": 26.0}}
    found = [record(2, 3), record(2, 6), record(8, 1), record(8, 3)]
    for made in found:
        made["config"] = {"data": {"generation": {"num_beams": 1}}}
    found[0]["metrics"]["packed"] = packed | {"identical": 0.99}
    found[1]["metrics"]["packed"] = packed | {"identical": None, "scores": None}
    found[2]["metrics"]["packed"] = packed | {"bytes": None, "scores": None, "identical": None}
    rows = [line.split("|")[1:-1] for line in parity_table(found).splitlines()]
    assert [[field.strip() for field in row] for row in (rows[0], *rows[2:])] == [
        ["student", "search", "positions", "bytes on disk", "identical",
         "per: student / packed", "wer: student / packed"],
        ["2-2-8 3-3", "greedy", "8 bits", "1,234", "99.00%", "5.00 / 5.00", "25.00 / 26.00"],
        ["2-2-8 6-6", "greedy", "8 bits", "1,234", "-", "5.00 / -", "25.00 / -"],
    ]  # fmt: skip
    assert parity_table(found[:1]).startswith("| search |")


@pytest.mark.parametrize("command", [latency_records.main, parity_records.main])
def test_nothing_to_tabulate_is_one_sentence(command, tmp_path, capsys):
    for path in (tmp_path, tmp_path / "no.json"):
        assert command([str(path)]) == 2
        output = capsys.readouterr()
        assert str(path) in output.err and output.err.count("\n") == 1 and not output.out
    (tmp_path / "run.json").write_text(json.dumps(record(2, 3)))
    assert command([str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "no record for this table" in said or "None of these records has a packed file" in said


def test_records_name_no_path_of_the_machine_they_were_made_on():
    for file in [TEACHER, *G2P.rglob("*.json"), *PARITY.glob("*.json")]:
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


def test_a_run_without_a_teacher_has_the_speed_of_its_packed_file_alone():
    """As experiment=g2p_teacher is published: nothing to lose, nobody else to time."""
    made = record(32, 6)
    made["metrics"] |= {
        "teacher": None, "drop": {}, "timed_items": 10,
        "generation_seconds": {"student": 4.0, "packed": 2.0},
    }  # fmt: skip
    head, _, row = records_table([made]).splitlines()
    assert head.endswith("| ratio | items/s: packed / teacher | minutes |")
    assert row.endswith("| 4.00x | 5.0 / - | 1.5 |")


def test_a_path_without_records_is_one_sentence(tmp_path, capsys):
    empty, other = tmp_path / "empty", tmp_path / "other.json"
    empty.mkdir()
    other.write_text('{"cells": []}')
    for words, sentence in (
        ([tmp_path / "t.json"], f"There is no {tmp_path / 't.json'}; "),
        ([empty], f"{empty} holds no record (*.json); "),
        ([other], f"{other} is no record for this table; "),
        (["--recipes", empty], f"{empty} holds no folder of a recipe's records; "),
        (["--recipes", tmp_path], f"{empty} holds no record (*.json); "),
    ):
        assert main([str(word) for word in words]) == 2
        output = capsys.readouterr()
        assert output.err.startswith(sentence) and output.err.count("\n") == 1
        assert not output.out


def test_a_folder_is_sorted_by_bits_and_layers(tmp_path):
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
