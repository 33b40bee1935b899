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


def test_a_figure_shows_every_run(folder):
    axes = recipes_figure(read_recipes(folder())).axes[0]
    dots = sorted(float(x) for line in axes.lines for x in line.get_xdata())
    assert dots == [3.0, 4.0, 6.0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["b", "a"]
    assert [bar.get_width() for bar in axes.patches] == [5.0, 3.0]
