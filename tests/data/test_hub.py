import json

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dq_lightning.data.columns import Columns
from dq_lightning.data.hub import Hub

COLUMNS = Columns("translation.en", "translation.ro")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A local parquet data set as the hub lays one out, nested as WMT is."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    data = tmp_path / "wmt"
    (data / "data").mkdir(parents=True)
    for split, number in (("train", 10), ("validation", 2), ("test", 2)):
        rows = [{"translation": {"en": f"{split} {i}", "ro": f"ro {i}"}} for i in range(number)]
        pq.write_table(
            pa.Table.from_pylist(rows), data / "data" / f"{split}-00000-of-00001.parquet"
        )
    return data


def message(action):
    with pytest.raises(ValueError) as raised:
        action()
    text = str(raised.value)
    assert "\n" not in text
    return text


def test_a_local_folder_with_nested_columns(folder):
    splits = Hub(str(folder), columns=COLUMNS).splits()
    assert {name: len(rows) for name, rows in splits.items()} == {
        "train": 10, "validation": 2, "test": 2,
    }  # fmt: skip
    assert splits["train"][0] == {"source": "train 0", "references": ["ro 0"]}


def test_slices_cut_one_split_into_several_without_overlap(folder):
    source = Hub(str(folder), train="train[:80%]", validation="train[80%:]", test=None,
                 columns=COLUMNS)  # fmt: skip
    splits = source.splits()
    assert "test" not in splits
    train, validation = (list(splits[name]["source"]) for name in ("train", "validation"))
    assert train + validation == [f"train {i}" for i in range(10)]


def test_a_missing_split_lists_those_there_are(folder):
    text = message(Hub(str(folder), test="tset", columns=COLUMNS).splits)
    assert "data.test=tset" in text and "'train', 'validation', 'test'" in text


def test_a_missing_configuration_lists_those_there_are(folder):
    text = message(Hub(str(folder), config="de-en", columns=COLUMNS).splits)
    assert "data.config=de-en" in text and "default" in text


def test_a_missing_column_names_the_nearest(folder):
    text = message(Hub(str(folder), columns=Columns("translation.em", "translation.ro")).splits)
    assert "split train" in text and "row 1" in text
    assert "the columns are translation.en, translation.ro" in text
    assert "write data.source=translation.en" in text


def test_no_such_folder_and_no_name():
    assert "data.name=./no/such is no folder" in message(lambda: Hub("./no/such"))
    assert "data.name=<owner/name>" in message(lambda: Hub(""))


@pytest.mark.parametrize(
    "error",
    [
        ConnectionError("Couldn't reach 'someone/none' on the Hub"),
        datasets.exceptions.DatasetNotFoundError("Dataset 'someone/none' doesn't exist\nor is it"),
        RuntimeError("Dataset scripts are no longer supported, but found none.py"),
    ],
)
def test_what_cannot_be_loaded_points_to_local_files(monkeypatch, error):
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr("dq_lightning.data.hub.load_dataset", fail)
    text = message(Hub("someone/none").fingerprint)
    assert "data.name=someone/none cannot be loaded" in text
    assert "data=jsonl data.train=<file>" in text


def test_the_fingerprint_of_a_folder_follows_its_bytes_and_the_settings(folder):
    one = Hub(str(folder), columns=COLUMNS).fingerprint()
    moved = folder.rename(folder.with_name("moved"))
    assert Hub(str(moved), columns=COLUMNS).fingerprint() == one
    assert Hub(str(moved), columns=Columns("translation.ro", "translation.en")).fingerprint() != one
    assert Hub(str(moved), test=None, columns=COLUMNS).fingerprint() != one
    (moved / "data" / "more.json").write_text(json.dumps({"translation": {}}))
    assert Hub(str(moved), columns=COLUMNS).fingerprint() != one


def test_the_fingerprint_of_a_repository_follows_the_prepared_commit(folder, monkeypatch):
    loaded = datasets.load_dataset(str(folder), split=["train", "validation", "test"])
    commits = iter(["aaaa", "aaaa", "bbbb"])

    def of(commit):
        def load(*args, **kwargs):
            for rows in loaded:
                files = [{"filename": f"/cache/{commit}/rows.arrow"}]
                monkeypatch.setattr(type(rows), "cache_files", files)
            return loaded

        return load

    found = []
    for commit in commits:
        monkeypatch.setattr("dq_lightning.data.hub.load_dataset", of(commit))
        found.append(Hub("someone/wmt", columns=COLUMNS).fingerprint())
    assert found[0] == found[1] != found[2]
