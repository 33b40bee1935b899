// The head of the page, its controls, and how it keeps itself up to date.

function drawHead() {
  find("name").textContent = data.name;
  const commands = data.commands.map((command) => element("pre", {}, element("code", {}, command)));
  const more = commands.splice(3);
  if (more.length) {
    const summary = element("summary", {}, `and ${more.length} more commands`);
    commands.push(element("details", {}, summary, ...more));
  }
  find("commands").replaceChildren(...commands);
  const counts = STATUSES.map((status) =>
    [status, data.cells.filter((cell) => cell.status === status).length]).filter(([, n]) => n);
  const bar = element("div", { class: "share", "aria-hidden": "true" },
    ...counts.map(([status, count]) => {
      const part = element("span", { class: `is-${status}` });
      part.style.flexGrow = count;
      return part;
    }));
  const words = counts.map(([status, count]) => element("span", { class: `is-${status}` },
    `${SIGNS[status]} ${count} ${status}`));
  const total = `${data.cells.length} ${data.cells.length === 1 ? "cell" : "cells"}`;
  find("progress").replaceChildren(bar, element("p", {}, element("b", {}, total), ...words));
  drawTiles();
  const facts = Object.entries(data.facts).map(([key, values]) => [key.replaceAll("_", " "),
    values.length > 4 ? `${values.slice(0, 4).join(", ")} and ${values.length - 4} more`
      : values.join(", ")]);
  if (data.created) facts.push(["started", dateText(data.created)]);
  find("facts").replaceChildren(...facts.map(([key, text]) => element("div", {},
    element("dt", {}, key), element("dd", {}, text))));
}

function most(value) {
  return data.cells.filter((cell) => value(cell) != null).sort((a, b) => value(b) - value(a))[0];
}

function drawTiles() {
  const tiles = [];
  const metric = data.primary;
  const best = data.cells[data.best];
  if (best) {
    const drop = best.drop[metric];
    tiles.push([`best ${metric}`, scoreText(best.scores[metric], metric), `${best.label}, ${
      ratioText(mainSize(best).ratio)} smaller (${mainSize(best).name}), drop ${scoreText(drop, metric, true)}`]);
  }
  for (const teacher of data.teachers.slice(0, 2)) {
    tiles.push([`teacher's ${metric}`, scoreText(teacher.scores[metric], metric),
      `${bytesText(teacher.bytes)}, full precision`]);
  }
  const small = most((cell) => mainSize(cell).ratio);
  if (small && small !== best) {
    const { bytes, ratio, name } = mainSize(small);
    tiles.push([`smallest (${name})`, ratioText(ratio), `${small.label}, ${bytesText(bytes)}, ${
      metric} ${scoreText(small.scores[metric], metric)}`]);
  }
  const fast = most((cell) => cell.speedup);
  if (fast) {
    tiles.push(["fastest packed file", ratioText(fast.speedup), `${fast.label}, ${
      secondsText(fast.packed_seconds_an_item)} an item, ${
      metric} ${scoreText(fast.scores[metric], metric)}`]);
  }
  find("tiles").replaceChildren(...tiles.map(([name, value, more]) => element("div", {},
    element("dt", {}, name), element("dd", {}, element("b", {}, value), element("span", {}, more)))));
}

// A click on a chart's cell: its predictions, and its row in the table.
function showCell(index) {
  choose("cell", data.cells[index].label);
  drawTable();
  if (!WRITERS.includes(index)) return;
  find("student").value = String(index);
  choose("student-label", data.cells[index].label);
  fromFirstPage();
}

function controls() {
  const names = data.metrics.map((metric) => [metric.name, metric.name]);
  const results = () => { drawGrid(); drawCosts(); };
  const [across, up] = usualAxes();
  const keys = [...KEYS.map((key) => [key, NAMES[key] ?? key]), ["", "all"]];
  find("metric-again").dataset.key = "metric";
  const same = (id, other) => () => { find(other).value = find(id).value; results(); };
  chooser("metric", names, data.primary, same("metric", "metric-again"));
  chooser("metric-again", names, data.primary, same("metric-again", "metric"));
  const known = ([key]) => !(key in FACTORS) || data.cells.some((cell) => QUANTITIES[key](cell) != null);
  chooser("quantity", listed("quantity").filter(known), "score", results);
  chooser("columns", keys, across, results);
  chooser("rows", keys, up, results);
  chooser("several", listed("several"), "best", results);
  const sizes = [...new Set(data.cells.flatMap((cell) => Object.keys(cell.sizes)))];
  chooser("size", sizes.map((key) => [key, sizeName(key)]), data.size, results);
  const timed = [["packed", "packed file", "packed_seconds_an_item"], ["student", "student", "seconds_an_item"]]
    .filter(([, , key]) => data.cells.some((cell) => cell[key]));
  chooser("time", timed, data.time, results);
  chooser("scale", listed("scale"), "linear", drawCurves);
  find("curves-all").addEventListener("click", () => chooseCurves(CURVED));
  find("curves-none").addEventListener("click", () => chooseCurves([]));
  remembered("filter", "value", "", drawTable);
  textControls();
}

function cellChooser(id, indices, fallback, onchange, more = []) {
  const byLabel = indices.find((index) => data.cells[index].label === choices[`${id}-label`]);
  const options = [...more, ...indices.map((index) => [String(index), data.cells[index].label])];
  choices[id] = byLabel == null ? choices[`${id}-label`] : String(byLabel);
  const select = chooser(id, options, fallback, () => {
    choose(`${id}-label`, data.cells[select.value]?.label ?? select.value);
    onchange();
  });
}

function textControls() {
  const first = WRITERS.includes(data.best) ? data.best : WRITERS[0];
  cellChooser("student", WRITERS, String(first), fromFirstPage);
  const taught = data.predictions.sets.some((set) => set.teacher.some((text) => text != null));
  cellChooser("against", WRITERS, taught ? "teacher" : "reference", fromFirstPage,
    [["teacher", "teacher"], ["reference", "reference"]]);
  chooser("unit", listed("unit"), "words", drawPredictions);
  remembered("search", "value", "", fromFirstPage);
  remembered("differ", "checked", false, fromFirstPage);
  find("previous").addEventListener("click", () => turnPage(-1));
  find("next").addEventListener("click", () => turnPage(1));
  const last = CONFIGURED[CONFIGURED.length - 1];
  cellChooser("config-a", CONFIGURED, String(CONFIGURED[0]), drawConfigs);
  cellChooser("config-b", CONFIGURED, String(last), drawConfigs);
}

drawHead();
controls();
drawGrid();
drawCosts();
drawCurves();
drawTable();
drawPredictions();
drawConfigs();
