// Training curves: a panel a logged name, a line a cell.

const CURVED = data.cells.map((_, index) => index).filter((index) =>
  Object.keys(data.curves[index]).length);

function usualCurves() {
  if (CURVED.length <= 9) return CURVED;
  const stride = CURVED.length / 6; // some of many, evenly spread over the grid
  return [...Array(6).keys()].map((number) => CURVED[Math.floor(number * stride)]);
}

// Labels outlive the reload of a growing sweep, positions do not.
function chosenCurves() {
  if (!choices.curves) return usualCurves();
  return CURVED.filter((index) => choices.curves.includes(data.cells[index].label));
}

function chooseCurves(indices) {
  choose("curves", indices.map((index) => data.cells[index].label));
  drawCurves();
}

function lineOf(index) {
  const place = CURVED.indexOf(index);
  const round = Math.floor(place / COLOURS.length);
  return { color: COLOURS[place % COLOURS.length], dash: DASHES[round % DASHES.length], width: 1.6 };
}

function panelNames() {
  const names = new Set(CURVED.flatMap((index) => Object.keys(data.curves[index])));
  const rank = (name) => [name !== "train/loss", !name.startsWith("train/"),
    !name.startsWith("validation/")].map(Number).join("");
  return [...names].sort((a, b) => byNumbers(rank(a), rank(b)) || byNumbers(a, b));
}

function drawCurves() {
  const names = panelNames();
  const shown = chosenCurves();
  find("curve-cells").replaceChildren(...CURVED.map((index) => toggle(
    data.cells[index].label, shown.includes(index),
    () => chooseCurves(shown.includes(index)
      ? shown.filter((other) => other !== index) : [...shown, index].sort((a, b) => a - b)),
    lineOf(index).color)));
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
  const cut = shown.some((index) => Object.values(data.curves[index])
    .some(({ steps }) => steps.length >= data.curve_points));
  find("curves-note").textContent = "Against training steps. A resumed run is one line: later starts "
    + `replace what they trained again.${cut ? ` At most ${data.curve_points} points a line.` : ""}`;
}

function drawPanel(id, name, shown) {
  const sparse = name.startsWith("validation/");
  const traces = () => shown.filter((index) => data.curves[index][name]).map((index) => {
    const { steps, values } = data.curves[index][name];
    return {
      type: "scatter", mode: sparse || steps.length === 1 ? "lines+markers" : "lines",
      x: steps, y: values, name: plain(data.cells[index].label), line: lineOf(index),
      marker: { size: 5 },
      hovertext: steps.map((step, at) => `${plain(data.cells[index].label)}<br>step ${
        countText(step)}: ${values[at]}`),
      hoverinfo: "text",
    };
  });
  const type = find("scale").value === "log" && !name.startsWith("lr") ? "log" : "linear";
  const layout = () => ({
    xaxis: axis("", { rangemode: "tozero", nticks: 5 }),
    yaxis: axis("", { type, nticks: 5, exponentformat: "power" }),
    margin: { l: 8, r: 12, t: 6, b: 8 },
  });
  draw(id, traces, layout, 190);
}
