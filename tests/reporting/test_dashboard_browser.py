"""The page in a headless Chromium: charts drawn, controls working, nothing on the console."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dq_lightning.reporting.report import write_report

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    not (BROWSER and DRIVER), reason="no chromium and chromedriver: apt-get install chromium-driver"
)

FLAGS = (
    "headless no-sandbox disable-gpu disable-quic no-first-run disable-background-networking "
    "disable-component-update disable-sync disable-dev-shm-usage window-size=1366,768"
).split()


class Browser:
    """A page and short ways to use it; the page's own update is off, so that nothing goes stale."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def open(self, folder: Path) -> "Browser":
        if self.driver.current_url.startswith("file:"):
            self.script("sessionStorage.clear()")  # what an earlier test chose
        self.driver.get((folder / "dashboard.html").as_uri())
        self.script("find('update').checked = false")
        return self

    def script(self, code: str, *arguments: Any) -> Any:
        return self.driver.execute_script(code, *arguments)

    def value(self, expression: str) -> Any:
        return self.script(f"return {expression}")

    def choose(self, name: str, text: str) -> None:
        found = self.script(
            "const select = find(arguments[0]);"
            "const option = [...select.options].find((o) => o.text === arguments[1]);"
            "if (!option) return false; select.value = option.value;"
            "select.dispatchEvent(new Event('change')); return true;",
            name, text,
        )  # fmt: skip
        assert found, f"{name} has no option {text}"

    def type(self, name: str, text: str) -> None:
        field = self.driver.find_element("id", name)
        field.clear()
        field.send_keys(text)

    def press(self, selector: str) -> None:
        self.driver.find_element("css selector", selector).click()

    def column(self, table: str, number: int) -> list[str]:
        rows = f"#{table} tbody:not(.teachers) tr > :nth-child({number})"
        return self.value(f"[...document.querySelectorAll('{rows}')].map((e) => e.textContent)")

    def complaints(self) -> list[Any]:
        return [line for line in self.driver.get_log("browser") if line["level"] != "INFO"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER or ""
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for flag in FLAGS:
        options.add_argument(f"--{flag}")
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    driver.set_page_load_timeout(120)
    yield Browser(driver)
    driver.quit()


@pytest.fixture(scope="module")
def folder(
    tmp_path_factory: pytest.TempPathFactory, sweep_writer: Callable[..., Path], nine: list[Any]
) -> Path:
    sweep_dir = sweep_writer(tmp_path_factory.mktemp("nine"), nine, "running")
    write_report(sweep_dir, figures=False)
    return sweep_dir


@pytest.fixture
def page(browser: Browser, folder: Path) -> Iterator[Browser]:
    yield browser.open(folder)
    assert browser.complaints() == []


def test_charts_are_drawn(page: Browser) -> None:
    drawn = page.value("[...document.querySelectorAll('.js-plotly-plot')].map((e) => e.id)")
    assert drawn[:3] == ["heatmap", "by-size", "by-time"]
    assert len(drawn) == 3 + 5
    assert page.value("document.querySelectorAll('#heatmap .hm').length") == 1
    labels = page.value("[...document.querySelectorAll('#heatmap .heatmap-label')]"
                        ".map((e) => e.textContent).filter(Boolean)")  # fmt: skip
    assert sorted(labels) == ["31.87", "35.34", "36.87", "53.17", "53.87", "58.87"]
    text = page.value("find('heatmap').textContent")
    assert "failed" in text
    assert "running 53 %" in text
    assert page.value("document.querySelectorAll('#by-size .scatterlayer .point').length") == 6 + 1
    assert page.value("document.querySelectorAll('#curve-0 .scatterlayer .js-line').length") == 8
    assert page.value("document.documentElement.scrollWidth <= innerWidth")


def test_the_head_says_how_far_the_sweep_is(page: Browser) -> None:
    text = page.value("document.querySelector('header').innerText")
    counts = ("9 cells", "6 finished", "1 failed", "1 queued")
    for words in ("grid-0a1b2c", *counts, "31.87", "-m quant"):
        assert words in text
    assert "written 20" in page.value("find('written').textContent")
    assert page.value("find('updating').hidden") is False


def test_the_grid_switches_quantities(page: Browser) -> None:
    page.choose("quantity", "drop against the teacher")
    labels = "[...document.querySelectorAll('#heatmap .heatmap-label')].map((e) => e.textContent)"
    assert "+1.87" in page.value(labels)
    page.choose("metric", "per")
    assert "+2.05" in page.value(labels)
    assert page.value("find('metric-again').value") == "per"
    page.choose("quantity", "nominal compression ratio")
    assert "68.0\u00d7" in page.value(labels)
    page.choose("quantity", "compression ratio on disk")
    assert "61.3\u00d7" in page.value(labels)
    page.choose("quantity", "speed-up of the packed file")
    assert "41.7\u00d7" in page.value(labels)
    page.choose("rows", "all")
    assert "3 runs" in page.value("find('heatmap').textContent")
    page.choose("several", "mean")
    assert "shows their mean" in page.value("find('heatmap-note').textContent")


def axis_title(page: Browser, chart: str) -> str:
    return page.value(f"find('{chart}').layout.xaxis.title.text")


def test_costs_are_those_of_the_packed_file(page: Browser) -> None:
    assert axis_title(page, "by-size") == "size on disk, MiB"
    assert axis_title(page, "by-time") == "generation time of the packed file, ms an item"
    assert page.value("find('by-time').layout.xaxis.type") == "log"
    hover = page.value("hoverOf(data.cells.find((cell) => cell.label === '4-4-8 1-1'))")
    assert hover.split("<br>")[3:] == [
        "295.50 KiB nominal, 40.8\u00d7 smaller", "1.68 ms an item",
        "<b>on disk</b> 315.03 KiB, 38.3\u00d7 smaller",
        "per 7.27, wer 53.97, 99.80 % as the student",
        "0.3 ms an item, 41.7\u00d7 the teacher's speed",
    ]  # fmt: skip
    tiles = page.value("find('tiles').innerText")
    assert "(on disk)\n61.3\u00d7" in tiles and "fastest packed file\n41.7\u00d7" in tiles
    page.choose("size", "nominal")
    page.choose("time", "student")
    assert axis_title(page, "by-size") == "nominal size, MiB"
    assert axis_title(page, "by-time") == "generation time of the student, ms an item"
    assert page.value("find('by-time').layout.xaxis.type") == "linear"


def test_cells_without_a_packed_file_have_gaps(
    browser: Browser, make_sweep: Callable[..., Path]
) -> None:
    folder = make_sweep([(2, "1", "finished"), (4, "1", "unpacked")])
    write_report(folder, figures=False)
    page = browser.open(folder)
    assert page.value("find('size').value") == "student_nominal"
    assert axis_title(page, "by-time").startswith("generation time of the student")
    titles = page.value("[...document.querySelectorAll('#table thead th')].map((e) => e.innerText)")
    at = titles.index("on disk") + 1
    assert page.column("table", at) == ["196.83 KiB", "\u2013"]
    assert page.column("table", titles.index("speed-up") + 1) == ["41.7\u00d7", "\u2013"]
    assert "smallest (nominal)" in page.value("find('tiles').innerText")
    page.choose("size", "on disk")
    assert page.value("document.querySelectorAll('#by-size .scatterlayer .point').length") == 1 + 1
    assert page.complaints() == []


def test_the_table_sorts(page: Browser) -> None:
    assert page.column("table", 1)[0] == "2-2-8 1-1"
    page.press("[data-key='wer']")
    scores = [text for text in page.column("table", 3) if text[0].isdigit()]
    assert scores == sorted(scores, key=float) and len(scores) == 6
    page.press("[data-key='wer']")
    assert page.column("table", 3)[:6] == scores[::-1]
    assert page.value("document.querySelector('[aria-sort=descending]').textContent") == "wer ↓"
    assert page.value("document.activeElement.dataset.key") == "wer"


def test_the_table_filters(page: Browser) -> None:
    page.type("filter", "nan at step")
    assert page.column("table", 1) == ["2-2-8 3-3"]
    assert page.column("table", 3) == [
        "RuntimeError: loss is nan at step 641; <b>lower</b> optimizer.lr"
    ]
    assert page.value("find('shown').textContent") == "1 of 9 cells"
    page.type("filter", "quant.bits=8")
    assert page.column("table", 1) == ["8-8-8 1-1", "8-8-8 3-3", "8-8-8 6-6"]
    page.press("#statuses button:nth-child(1)")
    assert page.column("table", 1) == ["8-8-8 3-3", "8-8-8 6-6"]


def test_predictions_are_searched_compared_and_paged(page: Browser) -> None:
    page.choose("student", "4-4-8 1-1")
    assert page.value("find('place').textContent") == "1\u201320 of 40 items"
    assert page.column("predictions", 2)[3] == "<script>alert(1)</script> 3"
    assert page.column("predictions", 5)[4] == "R <b>AH</b> N T 4</script>"
    assert (
        page.value("document.querySelectorAll('#predictions b, #predictions script').length") == 0
    )
    marked = "document.querySelectorAll('#predictions tbody tr')[4].querySelectorAll"
    texts = f"[...{marked}('mark')].map((e) => e.textContent)"
    assert page.value(texts) == ["AW", "D 4", "<b>AH</b>", "T 4</script>"]
    page.press("#next")
    assert page.column("predictions", 1)[0] == "21"
    page.press("#differ")
    assert page.column("predictions", 1) == [str(n) for n in range(1, 41, 4)]
    page.type("search", "zürich")
    assert page.column("predictions", 1) == ["13"]
    page.press("#differ")
    page.type("search", "N D 7")
    assert page.column("predictions", 1) == ["8"]
    page.choose("against", "2-2-8 1-1")
    page.choose("unit", "characters")
    page.type("search", "abated 2")
    assert page.column("predictions", 6)[0] == "R AW N D 2"


def test_cells_are_switched_in_the_curves(page: Browser) -> None:
    lines = "document.querySelectorAll('#curve-0 .scatterlayer .js-line').length"
    page.press("#curve-cells button:nth-child(2)")
    assert page.value(lines) == 7
    page.press("#curves-none")
    assert page.value(lines) == 0
    page.press("#curve-cells button:nth-child(3)")
    assert page.value(lines) == 1
    page.choose("scale", "logarithmic")
    assert page.value("find('curve-0').layout.yaxis.type") == "log"
    page.press("#curves-all")
    assert page.value(lines) == 8


def test_configs_are_compared(page: Browser) -> None:
    page.choose("config-a", "2-2-8 1-1")
    page.choose("config-b", "4-4-8 3-3")
    assert page.column("config", 1) == ["quant.bits", "student.layers"]
    assert page.column("config", 2) == ["2", '"1"']
    assert page.column("config", 3) == ["4", '"3"']
    page.choose("config-b", "2-2-8 1-1")
    assert page.column("config", 1) == []


def test_a_reload_keeps_the_readers_place(page: Browser) -> None:
    page.type("filter", "8-8")
    page.choose("student", "2-2-8 6-6")
    page.choose("quantity", "nominal compression ratio")
    page.script("scrollTo(0, 600)")
    page.script("find('filter').focus({ preventScroll: true }); window.before = true; load()")
    assert page.value("window.before") is None
    assert page.value("find('filter').value") == "8-8"
    assert page.value("find('quantity').value") == "ratio"
    assert page.value("find('student').selectedOptions[0].text") == "2-2-8 6-6"
    assert page.value("scrollY") == 600
    assert page.value("document.activeElement.id") == "filter"


def test_a_field_of_the_grid_leads_to_its_predictions(page: Browser) -> None:
    page.script("showCell(data.cells.findIndex((cell) => cell.label === '2-2-8 1-1'))")
    assert page.value("find('student').selectedOptions[0].text") == "2-2-8 1-1"
    assert page.value("document.querySelector('[aria-current] th').textContent") == "2-2-8 1-1"


@pytest.mark.parametrize(
    ("cells", "charts"),
    [
        ([], 0),
        ([(2, "1", "queued"), (4, "1", "failed")], 6),
        ([(2, "6-3", "finished")], 8),
        ([(2, "6-3", "finished", seed) for seed in (1, 2, 3)], 8),
    ],
    ids=["no cell", "none finished", "one", "seeds"],
)
def test_unusual_sweeps_are_drawn(
    browser: Browser, make_sweep: Callable[..., Path], cells: list[Any], charts: int
) -> None:
    folder = make_sweep(cells)
    write_report(folder, figures=False)
    browser.open(folder)
    assert browser.complaints() == []
    assert browser.value("document.querySelectorAll('.js-plotly-plot .main-svg').length > 0") == (
        charts > 0
    )
    assert browser.value("document.querySelectorAll('.js-plotly-plot').length") == charts
