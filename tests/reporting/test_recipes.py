"""Recipes compared over seeds: the table, and the figures that are drawn from the same records."""

import copy
import json

import pytest

from dq_lightning.reporting.figures import grid_figure, recipes_figure, save
from dq_lightning.reporting.records import drops, read_recipes, recipes_table

RECORD = {
    "seconds": 60.0,
    "metrics": {
        "cell": {"name": "2-2-8 6-3", "weight_bits": 2, "encoder_layers": 6, "decoder_layers": 3},
        "primary_metric": "wer",
        "teacher": {"per": 5.0, "wer": 20.0},
        "student": {"per": 6.0, "wer": 24.0},
        "drop": {"per": 1.0, "wer": 4.0},
        "bytes": {"student_nominal": 500_000, "ratio": 20.0},
        "run": {"seed": 1, "steps": 100, "test_rows": 50},
    },
}


def record(drop, seed, cell="2-2-8 6-3", **run):
    made = copy.deepcopy(RECORD)
    made["metrics"]["cell"]["name"] = cell
    made["metrics"]["drop"]["wer"] = drop
    made["metrics"]["run"] |= {"seed": seed, **run}
    return made


@pytest.fixture
def folder(tmp_path):
    """Two recipes, two seeds of the first cell; the second cell has one recipe."""

    def write(extra=()):
        runs = [("b", record(6.0, 2)), ("b", record(4.0, 1)), ("a", record(3.0, 1)), *extra]
        for number, (recipe, made) in enumerate(runs):
            (tmp_path / recipe).mkdir(exist_ok=True)
            (tmp_path / recipe / f"{number}.json").write_text(json.dumps(made))
        return tmp_path

    return write


def test_means_and_spreads_best_first(folder):
    recipes = read_recipes(folder([("b", record(9.0, 1, "2-2-8 3-1"))]))
    assert recipes_table(recipes).splitlines() == [
        "| cell | recipe | wer drop | per drop | wer drop by seed | steps | nominal bytes |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        "| 2-2-8 6-3 | a | +3.00 | +1.00 | 1: +3.00 | 100 | 500,000 |",
        "| 2-2-8 6-3 | b | +5.00 ± 1.41 | +1.00 ± 0.00 | 1: +4.00, 2: +6.00 | 100 | 500,000 |",
        "| 2-2-8 3-1 | b | +9.00 | +1.00 | 1: +9.00 | 100 | 500,000 |",
    ]
    assert drops(recipes["b"][:0], "wer") == []


def packed(made, size, seconds):
    made["metrics"]["bytes"] |= {"stored": size, "stored_ratio": 10_000_000 / size}
    made["metrics"] |= {"generation_seconds": {"teacher": 5.0, "packed": seconds}}
    made["metrics"]["timed_items"] = 10
    return made


def test_packed_files_are_means_over_the_seeds_that_have_one(folder):
    extra = [
        ("c", packed(record(9.0, s), n, t)) for s, n, t in ((1, 400_000, 1.0), (2, 600_000, 0.5))
    ]
    head, _, *rows = recipes_table(
        read_recipes(folder([*extra, ("c", record(9.0, 3))]))
    ).splitlines()
    assert head.endswith("| nominal bytes | bytes on disk (ratio) | items/s: packed / teacher |")
    assert [row.split(" | ", 6)[6] for row in rows] == [
        "500,000 | - | - |", "500,000 | - | - |", "500,000 | 500,000 (20.8x) | 15.0 / 2.0 |",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("run", "name"), [({"steps": 200}, "steps"), ({"test_rows": 9}, "test rows")]
)
def test_unequal_runs_are_not_compared(folder, run, name):
    recipes = read_recipes(folder([("a", record(3.0, 2, **run))]))
    with pytest.raises(ValueError, match=rf"2-2-8 6-3 differ in {name} .*equal steps"):
        recipes_table(recipes)


def test_figures_are_the_same_bytes_for_the_same_records(folder, tmp_path):
    recipes = read_recipes(folder())
    for draw in (lambda: recipes_figure(recipes), lambda: grid_figure(recipes["b"])):
        files = [tmp_path / "one.svg", tmp_path / "two.svg"]
        for file in files:
            save(draw(), file)
        one, two = (file.read_bytes() for file in files)
        assert one == two and one.startswith(b"<?xml") and len(one) > 5_000


def test_sizes_of_the_grid_are_on_disk_where_all_records_have_them():
    records = [packed(record(1.0, 1), 400_000, 1.0), packed(record(2.0, 2), 700_000, 1.0)]
    assert [grid_label(records), grid_label([*records, record(3.0, 3)])] == [
        ("size on disk", [0.4, 0.7]),
        ("nominal size", [0.5, 0.5, 0.5]),
    ]


def grid_label(records):
    axes = grid_figure(records).axes[0]
    return axes.get_xlabel().partition(",")[0], list(axes.lines[0].get_xdata())


def test_a_figure_shows_every_run(folder):
    axes = recipes_figure(read_recipes(folder())).axes[0]
    dots = sorted(float(x) for line in axes.lines for x in line.get_xdata())
    assert dots == [3.0, 4.0, 6.0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["b", "a"]
    assert [bar.get_width() for bar in axes.patches] == [5.0, 3.0]
