// Training curves: a panel a logged name, a line a cell.

const CURVED = data.cells.map((_, index) => index).filter((index) =>
  Object.keys(data.curves[index]).length);

function usualCurves() {
  if (CURVED.length <= 9) return CURVED;
  const stride = CURVED.length / 6; // some of many, evenly spread over the grid
  return [...Array(6).keys()].map((number) => CURVED[Math.floor(number * stride)]);
}

// The drawn cells at the places of their colours, null where one was taken out. Kept as labels:
// those outlive the reload of a growing sweep.
function chosenCurves() {
  if (!choices.curves) return usualCurves();
  return choices.curves.map((label) =>
    CURVED.find((index) => data.cells[index].label === label) ?? null);
}

function chooseCurves(places) {
  choose("curves", places.map((index) => (index == null ? null : data.cells[index].label)));
  drawCurves();
}

function switchCurve(index) {
  const places = [...chosenCurves()];
  const at = places.indexOf(index);
  const free = places.indexOf(null);
  if (at >= 0) places[at] = null;
  else if (free >= 0) places[free] = index;
  else places.push(index);
  chooseCurves(places);
}

function lineOf(place) {
  const round = Math.floor(place / COLOURS.length);
  return { color: COLOURS[place % COLOURS.length], dash: DASHES[round % DASHES.length], width: 1.6 };
}

function panelNames() {
  const names = new Set(CURVED.flatMap((index) => Object.keys(data.curves[index])));
  const rank = (name) => [name !== "train/loss", !name.startsWith("train/"),
    !name.startsWith("validation/")].map(Number).join("");
  return [...names].sort((a, b) => byNumbers(rank(a), rank(b)) || byNumbers(a, b));
}

let chips = [];

function drawCurves() {
  const names = panelNames();
  const shown = chosenCurves();
  const at = chips.indexOf(document.activeElement);
  chips = CURVED.map((index) => {
    const place = shown.indexOf(index);
    const colour = place < 0 ? "var(--line)" : lineOf(place).color;
    return toggle(data.cells[index].label, place >= 0, () => switchCurve(index), colour);
  });
  find("curve-cells").replaceChildren(...chips);
  chips[at]?.focus();
  const place = find("curves");
  if (!names.length) {
    place.replaceChildren(element("p", { class: "empty" }, "No cell has logged a training step yet."));
    return;
  }
  if (place.childElementCount !== names.length) {
    place.replaceChildren(...names.map((name, number) => element("figure", {},
      element("figcaption", {}, name),
      element("div", { class: "chart", role: "img", id: `curve-${number}`,
        "aria-label": `Curves of ${name}` }))));
  }
  names.forEach((name, number) => drawPanel(`curve-${number}`, name, shown));
  const cut = shown.some((index) => Object.values(data.curves[index] ?? {})
    .some(({ steps }) => steps.length >= data.curve_points));
  note("curves-note", "Against training steps. A resumed run is one line: later starts replace what "
    + `they trained again.${cut ? ` At most ${data.curve_points} points a line.` : ""}`,
    "Drag to zoom, double-click to return.");
}

function drawPanel(id, name, shown) {
  const sparse = name.startsWith("validation/");
  const lines = shown.map((index, place) => [index, place])
    .filter(([index]) => index != null && data.curves[index][name]);
  const traces = () => lines.map(([index, place]) => {
    const { steps, values } = data.curves[index][name];
    return {
      type: "scatter", mode: sparse || steps.length === 1 ? "lines+markers" : "lines",
      x: steps, y: values, name: plain(data.cells[index].label), line: lineOf(place),
      marker: { size: 5 },
      hovertext: steps.map((step, at) => `${plain(data.cells[index].label)}<br>step ${
        countText(step)}: ${values[at]}`),
      hoverinfo: "text",
    };
  });
  const type = find("scale").value === "log" && !name.startsWith("lr") ? "log" : "linear";
  const highest = Math.max(...lines.flatMap(([index]) => data.curves[index][name].values));
  const range = name.startsWith("lr") ? { range: [0, lines.length ? highest * 1.08 : 1] } : {};
  const layout = () => ({
    xaxis: axis("", { rangemode: "tozero", nticks: 5 }),
    yaxis: axis("", { type, nticks: 5, exponentformat: "power", ...range }),
    margin: { l: 8, r: 12, t: 6, b: 8 },
  });
  draw(id, traces, layout, 190);
}
