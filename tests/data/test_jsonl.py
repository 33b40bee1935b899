import gzip
import json
import lzma

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dq_lightning.data.columns import Columns
from dq_lightning.data.jsonl import READERS, Files

ROWS = [
    {"document": "a, b\nc", "summary": "short é", "id": "1"},
    {"document": "d", "summary": 'with "quotes"', "id": "2"},
]
COLUMNS = Columns("document", "summary")


def write(path, rows):
    """Rows in the format that the path's suffix says."""
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".csv":
        quoted = [['"' + str(v).replace('"', '""') + '"' for v in row.values()] for row in rows]
        lines = [",".join(rows[0]), *(",".join(fields) for fields in quoted)]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="")
    else:
        opener = {".gz": gzip.open, ".xz": lzma.open}.get(path.suffix, open)
        with opener(path, "wt", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
    return str(path)


def pairs(split):
    return list(zip(split["source"], split["references"], strict=True))


def message(action):
    with pytest.raises(ValueError) as raised:
        action()
    text = str(raised.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize("suffix", READERS)
def test_every_format_reads_alike(tmp_path, suffix):
    path = write(tmp_path / f"rows{suffix}", ROWS)
    splits = Files(train=path, test=path, columns=COLUMNS).splits()
    assert list(splits) == ["train", "test"]
    for split in splits.values():
        assert pairs(split) == [("a, b\nc", ["short é"]), ("d", ['with "quotes"'])]


@pytest.mark.parametrize("suffix", READERS)
def test_a_damaged_or_empty_file_is_named(tmp_path, suffix):
    path = tmp_path / f"rows{suffix}"
    path.write_bytes(b"\xff\xfe\x00 no such format \x00\xff")
    assert f"data.train={path} cannot be read" in message(Files(str(path)).splits)
    path.write_bytes(b"")
    assert f"data.train={path} is empty" in message(lambda: Files(str(path)))


@pytest.mark.parametrize("suffix", [".jsonl.gz", ".jsonl.xz", ".parquet"])
def test_a_cut_off_file_is_named(tmp_path, suffix):
    path = tmp_path / f"rows{suffix}"
    write(path, [{"source": f"{i} text", "target": "x"} for i in range(5000)])
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert "cannot be read past" in message(Files(str(path)).splits)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('{"source": "a", "target": "b"}\n{"source": \n', "line 2: invalid JSON"),
        ('\n[1, 2]\n', "line 2: a JSON list, not an object"),
        ('{"sourse": "a", "target": "b"}\n', "line 1: no column 'source'; the columns are sourse, "
         "target: write data.source=sourse."),
        ('{"source": "a", "zz": "b"}\n', "write data.target=<one of them>"),
        ('{"source": "a", "target": ""}\n', "line 1: the target (target) is empty"),
        ('{"source": "a", "target": null}\n', "line 1: the target (target) is empty"),
        ('{"source": "a", "target": []}\n', "line 1: the target (target) is empty"),
        ('{"source": "a", "target": ["b", ""]}\n', "line 1: the target (target) is empty"),
        ('{"source": "  ", "target": "b"}\n', "line 1: the source (source) is empty"),
        ('{"source": "a", "target": 3}\n', "column 'target' holds '3' (int), not text"),
        ('{"source": {"en": "a"}, "target": "b"}\n', "no column 'source'; the columns are "
         "source.en"),
        ("\n\n", "holds no rows"),
    ],
)  # fmt: skip
def test_bad_rows_name_file_line_and_column(tmp_path, content, expected):
    path = tmp_path / "rows.jsonl"
    path.write_text(content, encoding="utf-8")
    text = message(Files(str(path)).splits)
    assert expected in text and f"data.train={path}" in text


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("source,target\na,b\nc\n", "line 3: 1 fields where the header has 2"),
        ("source,target\na,b,c\n", "line 2: 3 fields where the header has 2"),
        ('source,target\na,"b\n', "cannot be read past the start: unexpected end of data"),
        ("source,target\n", "holds no rows"),
        ("source,target\na,\n", "line 2: the target (target) is empty"),
    ],
)
def test_bad_csv_is_named(tmp_path, content, expected):
    path = tmp_path / "rows.csv"
    path.write_text(content, encoding="utf-8")
    assert expected in message(Files(str(path)).splits)


def test_long_csv_fields_and_byte_order_marks_are_read(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text(f"\ufeffsource,target\n{'x' * 200_000},b\n", encoding="utf-8")
    assert len(Files(str(path)).splits()["train"]["source"][0]) == 200_000


def test_paths_are_checked_at_once(tmp_path):
    assert "data.test=/no/such.jsonl does not exist" in message(
        lambda: Files(test="/no/such.jsonl")
    )
    assert "is a folder, not a file" in message(lambda: Files(str(tmp_path)))
    (tmp_path / "rows.txt").write_text("x")
    assert "no known suffix" in message(lambda: Files(str(tmp_path / "rows.txt")))
    assert "data.train=<file>" in message(Files)


def test_home_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / "rows.jsonl", ROWS)
    assert len(Files("~/rows.jsonl", columns=COLUMNS).splits()["train"]) == 2


def test_references_replace_the_target_in_evaluation_where_filled(tmp_path):
    train = write(tmp_path / "train.jsonl", [{"s": "a", "t": "b"}])
    test = [{"s": "a", "t": "b", "all": ["b", "c"]}, {"s": "d", "t": "e"}]
    path = write(tmp_path / "test.jsonl", test)
    splits = Files(train, test=path, columns=Columns("s", "t", "all")).splits()
    assert pairs(splits["train"]) == [("a", ["b"])]
    assert pairs(splits["test"]) == [("a", ["b", "c"]), ("d", ["e"])]


def test_a_references_column_that_is_nowhere_is_an_error(tmp_path):
    path = write(tmp_path / "rows.jsonl", [{"source": "a", "target": "b", "targets": ["b"]}])
    files = Files(path, path, path, Columns(references="tragets"))
    assert "no column 'tragets'" in message(files.splits)
    assert "data.references=targets" in message(files.splits)


def test_several_columns_as_references_and_as_source(tmp_path):
    row = {"q": "why", "c": "text", "a1": "x", "a2": ["y", "z"]}
    path = write(tmp_path / "rows.jsonl", [row, {**row, "c": ""}])
    columns = Columns(["q", "c"], ["a1", "a2"], separator=" | ")
    split = Files(path, columns=columns).splits()["train"]
    assert pairs(split) == [("why | text", ["x", "y", "z"]), ("why", ["x", "y", "z"])]


def test_columns_of_references_may_be_filled_in_some_rows(tmp_path):
    rows = [{"s": "a", "t": "1", "t2": "2"}, {"s": "b", "t": "3", "t2": None}]
    path = write(tmp_path / "rows.parquet", rows)
    split = Files(test=path, columns=Columns("s", "t", ["t", "t2"])).splits()["test"]
    assert pairs(split) == [("a", ["1", "2"]), ("b", ["3"])]


def test_empty_rows_can_be_dropped_with_a_warning(tmp_path):
    rows = [{"source": "a", "target": "b"}, {"source": "", "target": "b"},
            {"source": "a", "target": None}]  # fmt: skip
    path = write(tmp_path / "rows.jsonl", rows)
    with pytest.warns(UserWarning, match="2 rows without source or target left out"):
        split = Files(path, columns=Columns(drop_empty=True)).splits()["train"]
    assert pairs(split) == [("a", ["b"])]


def test_the_fingerprint_follows_bytes_and_settings_but_not_the_folder(tmp_path):
    path = write(tmp_path / "rows.jsonl", ROWS)
    (tmp_path / "sub").mkdir()
    moved = write(tmp_path / "sub" / "moved.jsonl", ROWS)
    other = write(tmp_path / "other.jsonl", ROWS[:1])
    one = Files(path, columns=COLUMNS).fingerprint()
    assert one == Files(moved, columns=Columns(["document"], ["summary"])).fingerprint()
    variants = [
        Files(other, columns=COLUMNS),
        Files(test=path, columns=COLUMNS),
        Files(path, columns=Columns("summary", "document")),
        Files(path, columns=Columns("document", "summary", "id")),
        Files(path, columns=Columns("document", "summary", separator=" ")),
    ]
    assert len({one, *(files.fingerprint() for files in variants)}) == len(variants) + 1
