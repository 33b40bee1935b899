"""What the page carries: all numbers, no markup of the data's, nothing from the network."""

import json
import math
import os
import re
import socket
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml

from dq_lightning.artifacts.artifact import Artifact
from dq_lightning.reporting import predictions, sweep_figures
from dq_lightning.reporting.collect import collect
from dq_lightning.reporting.curves import MAX_POINTS, curves
from dq_lightning.reporting.dashboard import dashboard, embedded
from dq_lightning.reporting.dashboard_data import dashboard_data
from dq_lightning.reporting.pareto import best_row, front, lower_is_better
from dq_lightning.reporting.report import write_report

NASTY = ["</script><script>alert(1)</script>", "<!--", "\u2028\u2029", "\ud800", 'a"b\\', "&lt;"]


class Page(HTMLParser):
    """Tags, and the text of the element with the id `data`, as a browser splits them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.data = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][1].get("id") == "data":
            self.data += data


def data_of(folder: Path) -> dict[str, Any]:
    rows = collect(folder)
    manifest = folder / "sweep.json"
    content = json.loads(manifest.read_text()) if manifest.exists() else {}
    return dashboard_data(rows, "name", content)


def test_embedded_texts_stay_texts() -> None:
    text = embedded(NASTY)
    assert "<" not in text
    assert not set(text) & {"\u2028", "\u2029"}
    assert json.loads(text) == [word.replace("\ud800", "?") for word in NASTY]


def test_numbers_that_json_cannot_say_become_null() -> None:
    assert json.loads(embedded([float("nan"), float("inf"), 1.5])) == [None, None, 1.5]


def test_a_page_survives_nasty_names_and_predictions(make_sweep) -> None:
    folder = make_sweep([(2, "1", "finished"), (4, "1", "failed")])
    (run,) = (row["folder"] for row in collect(folder) if row["status"] == "finished")
    rows = [{"source": t, "references": [t], "student": t, "teacher": None} for t in NASTY]
    (run / "predictions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    page = Page(dashboard(collect(folder), "<script>name</script>", {"command": NASTY[0]}))
    assert [tag for tag, _ in page.tags].count("script") == 3
    data = json.loads(page.data)
    assert data["predictions"]["students"][0]["texts"][0] == NASTY[0]
    assert data["commands"] == [NASTY[0]]
    assert data["name"] == "<script>name</script>"


def test_a_page_loads_nothing(make_sweep) -> None:
    page = Page(dashboard(collect(make_sweep([(2, "1", "finished")])), "x", {}))
    assert [a for _, a in page.tags if {"src", "srcset", "action"} & a.keys()] == []
    assert [tag for tag, _ in page.tags if tag in ("link", "iframe", "img", "base")] == []
    assert all(a["href"].startswith("#") for tag, a in page.tags if tag == "a" and a["href"])
    (policy,) = [a["content"] for _, a in page.tags if a.get("http-equiv")]
    assert policy and "default-src 'none'" in policy


def test_cells_say_what_they_are(make_sweep, nine) -> None:
    data = data_of(make_sweep(nine, "running"))
    states = [cell["status"] for cell in data["cells"]]
    assert {s: states.count(s) for s in states} == {
        "finished": 6, "failed": 1, "running": 1, "queued": 1,
    }  # fmt: skip
    assert data["live"]
    cells = {cell["label"]: cell for cell in data["cells"]}
    assert cells["2-2-8 3-3"]["error"].endswith("<b>lower</b> optimizer.lr")
    assert cells["8-8-8 3-3"]["progress"]["steps"] == 1200
    assert (cells["8-8-8 6-6"]["bits"], cells["8-8-8 6-6"]["layers"]) == ("8-8-8", "6-6")
    assert cells["4-4-8 1-1"]["seconds_an_item"] == pytest.approx(0.00168)
    assert data["cells"][data["best"]]["label"] == "4-4-8 6-6"
    assert data["metrics"] == [{"name": "wer", "lower": True}, {"name": "per", "lower": True}]
    assert data["teachers"][0]["seconds_an_item"] == 0.0125
    assert (data["size"], data["time"]) == ("stored", "packed")
    cell = cells["4-4-8 1-1"]
    assert cell["sizes"] == {"student_nominal": 302_590, "stored": 322_590}
    assert cell["stored_ratio"] == pytest.approx(12_345_678 / 322_590)
    assert cell["packed_seconds_an_item"] == pytest.approx(0.0003)
    assert cell["speedup"] == pytest.approx(12.5 / 0.3)
    assert cell["packed"]["identical"] == 0.998
    assert cells["8-8-8 6-6"]["packed"]["scores"] == {}


def test_one_cell_without_a_packed_file_leaves_the_numbers_that_all_have(make_sweep) -> None:
    data = data_of(make_sweep([(2, "1", "finished"), (4, "1", "unpacked"), (8, "1", "running")]))
    assert (data["size"], data["time"]) == ("student_nominal", "student")
    assert [cell["stored_ratio"] is None for cell in data["cells"]] == [False, True, True]
    assert data["facts"]["commit"] == ["0123456789"]


def test_a_finished_sweep_is_not_live(make_sweep) -> None:
    assert not data_of(make_sweep([(2, "1", "finished"), (4, "1", "interrupted")]))["live"]


def test_a_killed_sweep_is_not_live(make_sweep) -> None:
    rows = collect(make_sweep([(2, "1", "finished"), (4, "1", "queued")]))
    owner = {"status": "running", "host": socket.gethostname()}
    killed = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"],
                            capture_output=True, check=True)  # fmt: skip
    data = dashboard_data(rows, "name", owner | {"pid": int(killed.stdout)})
    assert (data["status"], data["live"]) == ("interrupted", False)
    data = dashboard_data(rows, "name", owner | {"pid": os.getpid()})
    assert (data["status"], data["live"]) == ("running", True)


def test_only_keys_that_differ_are_compared(make_sweep) -> None:
    data = data_of(make_sweep([(2, "1", "finished"), (4, "1", "finished"), (8, "1", "queued")]))
    assert data["configs"] == [{"quant.bits": "2"}, {"quant.bits": "4"}, None]
    assert [cell["settings"] for cell in data["cells"]] == [
        {"quant.bits": "2"}, {"quant.bits": "4"}, {"quant.bits": "8"},
    ]  # fmt: skip


def test_a_key_that_one_config_lacks_differs(make_sweep) -> None:
    folder = make_sweep([(2, "1", "finished"), (2, "3", "finished")])
    first = collect(folder)[0]["folder"] / "config.yaml"
    first.write_text(yaml.safe_dump({"student": {"layers": "1", "own": {}}, "x": None}))
    one, two = data_of(folder)["configs"]
    assert one == {"student.layers": '"1"', "student.own": "{}", "x": "null"}
    assert two["student.layers"] == '"3"'
    assert "student.own" not in two


@pytest.mark.parametrize("content", ["a: [", "- 1", "\x00", "", "!!python/object:os.system {}"])
def test_broken_configs_do_not_raise(make_sweep, content: str) -> None:
    folder = make_sweep([(2, "1", "finished")])
    (collect(folder)[0]["folder"] / "config.yaml").write_text(content)
    assert data_of(folder)["configs"] == [None]


def test_a_later_start_wins_from_its_first_step_on(make_sweep) -> None:
    folder = make_sweep([(2, "1", "finished")])
    loss = curves(collect(folder)[0]["folder"])["train/loss"]
    assert loss["steps"] == list(range(19, 1200, 20))
    level = {step: value - math.exp(-step / 300)
             for step, value in zip(loss["steps"], loss["values"], strict=True)}  # fmt: skip
    # the second start resumed at step 600 and lies 0.01 higher
    assert level[619] - level[599] == pytest.approx(0.01, abs=1e-4)
    assert level[1199] - level[19] == pytest.approx(0.01, abs=1e-4)


def test_curves_are_merged_thinned_and_never_raise(tmp_path: Path) -> None:
    logs = {"0": "step,train/loss\n1,1.0\n2,2.0\n3,3.0\n", "1": "step,train/loss\n0,\n",
            "10": "step,train/loss\n3,0.5\nx,9\n4,nan\n", "2": "step,train/loss\n2,7.0\n3,8.0\n",
            "bad": "\x00\x00"}  # fmt: skip
    for name, text in logs.items():
        (tmp_path / "logs" / name).mkdir(parents=True)
        (tmp_path / "logs" / name / "metrics.csv").write_text(text)
    assert curves(tmp_path) == {"train/loss": {"steps": [1, 2, 3], "values": [1.0, 7.0, 0.5]}}
    lines = [f"{step},{step / 7}" for step in range(5 * MAX_POINTS + 3)]
    (tmp_path / "logs" / "10" / "metrics.csv").write_text("step,lr\n" + "\n".join(lines))
    thinned = curves(tmp_path)["lr"]
    assert MAX_POINTS / 2 < len(thinned["steps"]) <= MAX_POINTS
    assert thinned["steps"][-1] == 5 * MAX_POINTS + 2
    assert curves(tmp_path / "nowhere") == {}


def test_predictions_are_shared_spread_and_limited(make_sweep, monkeypatch) -> None:
    monkeypatch.setattr(predictions, "MAX_ITEMS", 10)
    folder = make_sweep([(2, "1", "finished", 28, 40), (4, "1", "finished", 28, 40),
                         (8, "1", "finished", 28, 7), (8, "3", "running")])  # fmt: skip
    run_dirs = [row["folder"] if row["status"] == "finished" else None for row in collect(folder)]
    found = predictions.predictions(run_dirs, 10)
    assert [s and s["set"] for s in found["students"]] == [0, 0, 1, None]
    assert [s["total"] for s in found["sets"]] == [40, 7]
    assert found["sets"][0]["numbers"] == list(range(1, 41, 4))
    assert found["sets"][1]["numbers"] == list(range(1, 8))
    assert found["students"][0]["texts"][1] == "R <b>AH</b> N T 4</script>"
    size = len(json.dumps(found, ensure_ascii=False))
    monkeypatch.setattr(predictions, "MAX_CHARACTERS", size // 2)
    few = predictions.predictions(run_dirs, 40)
    assert 10 <= len(few["sets"][0]["numbers"]) < 40


@pytest.mark.parametrize("content", [b"", b"{", b"[1]\n{}\n", b"\xff\xfe\n", b'{"references": 3}'])
def test_broken_predictions_do_not_raise(make_sweep, content: bytes) -> None:
    folder = make_sweep([(2, "1", "finished")])
    (collect(folder)[0]["folder"] / "predictions.jsonl").write_bytes(content)
    assert len(data_of(folder)["predictions"]["students"]) == 1


def test_the_drops_sign_tells_the_direction(sweep: Path) -> None:
    rows = collect(sweep)
    assert lower_is_better(rows, "wer") is True
    assert best_row(rows, "wer") is not None
    for row in rows:
        row["wer_drop"] = -row["wer_drop"] if "wer" in row else None
    assert lower_is_better(rows, "wer") is False
    for row in rows:
        row["wer_drop"] = 0.0
    assert lower_is_better(rows, "wer") is None
    assert best_row(rows, "wer") is None


def test_the_front_holds_what_no_other_beats() -> None:
    points = [(1.0, 50.0), (2.0, 60.0), (2.0, 40.0), (3.0, 40.0), (4.0, 30.0)]
    assert front(points, lower=True) == [0, 2, 4]
    assert front(points, lower=False) == [0, 1]


def test_published_rows_stand_beside_the_same_data_only(make_sweep) -> None:
    folder = make_sweep([(2, "6", "finished"), (8, "6", "finished")])

    def points(**data: Any) -> list[dict[str, Any]]:
        for row in collect(folder):
            metrics = Artifact(row["folder"]).read_json("metrics.json")
            sizes = metrics["bytes"] | {"teacher": 557_681_664}
            Artifact(row["folder"]).write_json("metrics.json", metrics | {"bytes": sizes})
            (row["folder"] / "config.yaml").write_text(yaml.safe_dump({"data": data}))
        return data_of(folder)["published"]

    assert points(name="cmudict") == []
    assert points(name="cnn_dailymail", limit_test=8) == []
    found = points(name="abisee/cnn_dailymail", limit_test=None)
    own = {(p["method"], p["cell"]): p for p in found}
    assert own["DQ-BART", "2-2-8 6-6"]["bytes"] == pytest.approx(557_681_664 / 13.6)
    assert own["full precision", "32-32-32 6-6"]["bytes"] == 557_681_664
    assert own["DQ-BART", "2-2-8 6-6"]["scores"].keys() == {"rouge1", "rouge2", "rougeLsum"}
    assert all(point["bytes"] and any(point["scores"].values()) for point in found)
    assert all(isinstance(point["source"], str) for point in found)


def test_every_file_is_written(make_sweep) -> None:
    folder = make_sweep([(2, "1", "finished"), (4, "3", "finished")])
    write_report(folder)
    named = "report.md report.csv report.tex timing.csv dashboard.html".split()
    named += [f"{figure}.{kind}" for figure in ("grid", "size", "time") for kind in ("png", "svg")]
    assert {file.name for file in folder.iterdir()} == {*named, "sweep.json"}
    assert (folder / "grid.png").read_bytes().startswith(b"\x89PNG")
    before = (folder / "size.svg").read_bytes()
    write_report(folder)
    assert (folder / "size.svg").read_bytes() == before


def test_nothing_to_show_is_a_page_too(tmp_path: Path) -> None:
    write_report(tmp_path, figures=True)
    page = Page((tmp_path / "dashboard.html").read_text())
    assert json.loads(page.data)["cells"] == []
    assert not list(tmp_path.glob("*.png"))


def test_a_report_of_nine_cells_is_quick(make_sweep, nine) -> None:
    folder = make_sweep([(bits, layers, "finished", 28, 2000) for bits, layers, _ in nine])
    write_report(folder, figures=False)
    began = time.process_time()
    write_report(folder, figures=False)
    assert time.process_time() - began < 2
    assert (folder / "dashboard.html").stat().st_size < 15e6


def test_every_script_and_style_is_in_the_page() -> None:
    text = dashboard([], "x", {})
    folder = Path(sweep_figures.__file__).parent / "page"
    for file in folder.iterdir():
        if file.suffix in (".js", ".css"):
            assert file.read_text() in text, file.name
            assert len(file.read_text().splitlines()) <= 300
    assert not re.search(r"innerHTML|insertAdjacentHTML|document\.write|eval\(", "".join(
        file.read_text() for file in folder.glob("*.js")))  # fmt: skip
