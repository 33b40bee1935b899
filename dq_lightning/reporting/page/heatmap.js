// The grid: two keys of the sweep as columns and rows, one number a field.

const KEYS = [
  ...["bits", "layers"].filter((key) => data.cells.some((cell) => cell[key] != null)),
  ...new Set(data.cells.flatMap((cell) => Object.keys(cell.settings))),
];

const NAMES = { bits: "bits (W-E-A)", layers: "layers (encoder-decoder)", "": "all" };

function valueOf(cell, key) {
  if (key === "") return "all";
  return key === "bits" || key === "layers" ? cell[key] : cell.settings[key] ?? "(default)";
}

function distinct(key, cells = data.cells) {
  const found = cells.map((cell) => valueOf(cell, key)).filter((value) => value != null);
  return [...new Set(found)].sort(byNumbers);
}

// Bits and layers where the sweep varies one of them; else the first keys that it does vary.
function usualAxes() {
  const varied = KEYS.filter((key) => distinct(key).length > 1);
  const main = varied.filter((key) => key === "bits" || key === "layers");
  const others = varied.filter((key) => !["bits", "layers", "quant.bits", "student.layers"]
    .includes(key));
  if (main.length === 2 || (!others.length && KEYS.includes("bits"))) return ["bits", "layers"];
  return [...main, ...others, "", ""].slice(0, 2);
}

const QUANTITIES = {
  score: (cell, metric) => cell.scores[metric],
  drop: (cell, metric) => cell.drop[metric],
  ratio: (cell) => cell.ratio,
  stored_ratio: (cell) => cell.stored_ratio,
  speedup: (cell) => cell.speedup,
};
const FACTORS = { ratio: "nominal compression ratio", stored_ratio: "compression ratio on disk",
  speedup: "times the packed file is faster than the teacher" };

function isLowerBetter(quantity, metric) {
  if (quantity in FACTORS) return false;
  return quantity === "drop" ? true : metricOf(metric).lower;
}

function fieldText(value, quantity, metric) {
  if (quantity in FACTORS) return ratioText(value);
  return scoreText(value, metric, quantity === "drop");
}

function fieldOf(cells, quantity, metric, several) {
  const values = cells.map((cell) => QUANTITIES[quantity](cell, metric))
    .filter((value) => value != null);
  if (!values.length) return null;
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  const lower = isLowerBetter(quantity, metric);
  if (several === "mean" || lower == null) return mean;
  return lower ? Math.min(...values) : Math.max(...values);
}

function stateText(cells) {
  const cell = cells[0];
  const { step, steps } = cell.progress;
  const share = cell.status === "running" && steps ? ` ${Math.floor((100 * (step || 0)) / steps)} %` : "";
  return `${SIGNS[cell.status] || ""} ${cell.status}${share}`;
}

// Places 0, 1, ... with names: also right where no field has a number yet.
function categories(key, names) {
  return axis(plain(NAMES[key] ?? key), {
    tickvals: names.map((_, at) => at), ticktext: names.map(plain), showgrid: false,
    showline: false, range: [-0.5, names.length - 0.5], fixedrange: true,
  });
}

function drawGrid() {
  const [metric, quantity] = [find("metric").value, find("quantity").value];
  const [across, up] = [find("columns").value, find("rows").value];
  const placed = data.cells.filter((c) => valueOf(c, across) != null && valueOf(c, up) != null);
  const [columns, rows] = [distinct(across, placed), distinct(up, placed)];
  const at = (row, column) =>
    placed.filter((c) => valueOf(c, across) === column && valueOf(c, up) === row);
  const groups = rows.map((row) => columns.map((column) => at(row, column)));
  const several = groups.flat().some((cells) => cells.length > 1);
  find("several-label").hidden = !several;
  describeGrid(metric, quantity, placed, several);
  if (!placed.length) return empty("heatmap", "No cell says yet what bits and layers it has.");
  const field = (cells) => fieldOf(cells, quantity, metric, find("several").value);
  const number = (cells) => (cells.length > 1 ? `<br>${cells.length} runs` : "");
  const values = new Set(groups.flat().map(field).filter((value) => value != null));
  const traces = () => [{
    type: "heatmap", z: groups.map((row) => row.map(field)), showscale: values.size > 1,
    text: groups.map((row) => row.map((cells) => (field(cells) == null ? ""
      : fieldText(field(cells), quantity, metric) + number(cells)))),
    texttemplate: "%{text}", textfont: { size: columns.length > 8 ? 12 : 15 }, xgap: 3, ygap: 3,
    customdata: groups.map((row) => row.map((cells) => cells.map((c) => data.cells.indexOf(c)))),
    hovertext: groups.map((row) => row.map((cells) => cells.map(hoverOf).join("<br><br>"))),
    hoverinfo: "text", hoverongaps: false, colorscale: "Cividis",
    reversescale: isLowerBetter(quantity, metric) === true,
    colorbar: { thickness: 10, outlinewidth: 0, len: 1, tickfont: { size: 11 } },
  }];
  const waiting = groups.flatMap((row, y) => row.map((cells, x) => [cells, x, y]))
    .filter(([cells]) => cells.length && field(cells) == null);
  const layout = () => ({
    xaxis: categories(across, columns), yaxis: categories(up, rows),
    annotations: waiting.map(([cells, x, y]) => ({
      x, y, text: plain(stateText(cells)), showarrow: false, font: { color: theme().quiet },
    })),
    shapes: waiting.map(([, x, y]) => ({
      type: "rect", x0: x - 0.49, x1: x + 0.49, y0: y - 0.47, y1: y + 0.47, layer: "below",
      fillcolor: theme().soft, line: { width: 0 },
    })),
  });
  find("heatmap").style.maxWidth = `${220 + 190 * columns.length}px`;
  draw(onceCleared("heatmap"), traces, layout,
    130 + Math.max(64 * Math.min(rows.length, 8), 26 * rows.length));
  find("heatmap").removeAllListeners?.("plotly_click");
  find("heatmap").on("plotly_click", ({ points }) => showCell(points[0].customdata[0]));
}

function describeGrid(metric, quantity, placed, several) {
  const what = { ...FACTORS, score: metric + directionText(metricOf(metric)),
    drop: `${metric} lost against the teacher (positive: worse)` }[quantity];
  const parts = [`Each field: ${what}. Brighter is better.`];
  if (!data.metrics.length) parts[0] = "No cell is finished yet.";
  else if (isLowerBetter(quantity, metric) == null) {
    parts[0] = `Each field: ${what}; brighter is higher.`;
  }
  if (several) parts.push(`Where a field has several runs it shows their ${find("several").value}.`);
  const missing = data.cells.length - placed.length;
  if (missing) parts.push(`In the table only, for want of these two keys: ${missing}.`);
  note("heatmap-note", parts.join(" "), WRITERS.length ? "A click on a field shows its predictions." : "");
  find("heatmap").setAttribute("aria-label", `Heat map, ${what}; the numbers are in the table.`);
}

// The lines of a hover box: a cell's scores with drops, sizes, ratios, times, its packed file.
function hoverOf(cell) {
  const lines = [`<b>${plain(cell.label)}</b>  ${plain(cell.status)}`];
  for (const [name, value] of Object.entries(cell.scores)) {
    const drop = cell.drop[name] == null ? "" : `  (drop ${scoreText(cell.drop[name], name, true)})`;
    lines.push(`${plain(name)} ${scoreText(value, name)}${drop}`);
  }
  if (cell.ratio != null) {
    lines.push(`${bytesText(cell.sizes.student_nominal)} nominal, ${ratioText(cell.ratio)} smaller`);
  }
  if (cell.seconds_an_item != null) lines.push(`${secondsText(cell.seconds_an_item)} an item`);
  lines.push(...packedLines(cell));
  const note = noteOf(cell);
  if (!Object.keys(cell.scores).length && note) lines.push(plain(note.slice(0, 90)));
  return lines.join("<br>");
}

// Size, scores and time of the file on disk, or why there are none.
function packedLines(cell) {
  const { packed } = cell;
  const lines = [];
  if (cell.sizes.stored != null) {
    lines.push(`<b>on disk</b> ${bytesText(cell.sizes.stored)}, ${ratioText(cell.stored_ratio)} smaller`);
  }
  const parts = Object.entries(packed.scores)
    .map(([name, value]) => `${plain(name)} ${scoreText(value, name)}`);
  if (packed.identical != null) parts.push(`${shareText(packed.identical)} as the student`);
  if (parts.length) lines.push(parts.join(", "));
  if (cell.packed_seconds_an_item != null) {
    lines.push(`${secondsText(cell.packed_seconds_an_item)} an item, ${
      ratioText(cell.speedup)} the teacher's speed`);
  }
  if (packed.reason) lines.push(plain(`not ${lines.length ? "run" : "packed"}: ${packed.reason}`.slice(0, 90)));
  return lines;
}
