"""``dashboard.html``: one page that opens from disk, with its data, scripts and styles inside."""

from collections.abc import Mapping, Sequence
from functools import cache
from html import escape
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from dq_lightning.artifacts.atomic import strict_json
from dq_lightning.reporting.collect import Row
from dq_lightning.reporting.dashboard_data import dashboard_data

_PAGE = Path(__file__).parent / "page"
# In their order: what stands later uses or overrides what stands earlier.
_STYLES = ("style.css", "tables.css", "media.css")
_SCRIPTS = (
    "state.js",
    "words.js",
    "charts.js",
    "heatmap.js",
    "scatter.js",
    "curves.js",
    "table.js",
    "predictions.js",
    "config.js",
    "page.js",
    "update.js",
)


def dashboard(rows: Sequence[Row], name: str, manifest: Mapping[str, Any]) -> str:
    """The whole page as text; its policy lets it load nothing from anywhere."""
    data = dashboard_data(rows, name, manifest)
    parts = {
        "title": escape(name),
        "style": "\n".join(map(_asset, _STYLES)),
        "plotly": _plotly(),
        "data": embedded(data),
        "scripts": "\n".join(map(_asset, _SCRIPTS)),
    }
    page = _asset("page.html")
    for key, text in parts.items():
        before, _, after = page.partition(f"<!--{key}-->")
        parts[key], page = before + text, after
    return "".join(parts.values()) + page


def embedded(content: Any) -> str:
    """JSON that no reader of HTML takes for anything else, whatever its texts hold.

    ``<`` and the two line separators of JavaScript are escaped; half a surrogate pair, which UTF-8
    cannot write, becomes a question mark.
    """
    text = strict_json(content)
    for character in "<\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text.encode("utf-8", "replace").decode("utf-8")


def _asset(name: str) -> str:
    return (_PAGE / name).read_text(encoding="utf-8")


@cache
def _plotly() -> str:
    """The minified plotly.js that the package plotly brings; its Python code is not needed."""
    spec = find_spec("plotly")
    assert spec is not None, "plotly is a dependency"
    assert spec.submodule_search_locations is not None, "plotly is a package"
    folder = Path(spec.submodule_search_locations[0])
    script = (folder / "package_data" / "plotly.min.js").read_text(encoding="utf-8")
    assert "</script" not in script, "it would end early inside the page"
    return script
