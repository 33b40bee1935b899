// Metric against what a student costs: bytes on a logarithmic axis, seconds an item on a plain one
// unless they lie far apart.

const MEBI = 2 ** 20;
const LOGARITHMIC = { type: "log", dtick: "D2", tickformat: "~g" };
const FAR_APART = 10; // from here on a plain axis would draw all but the dearest in one place

function frontOf(points, lower) {
  const sign = lower ? 1 : -1;
  const sorted = [...points].sort((a, b) => a.x - b.x || sign * (a.y - b.y));
  let best = Infinity;
  return sorted.filter((point) => {
    const better = sign * point.y < best;
    if (better) best = sign * point.y;
    return better;
  });
}

function studentTraces(points) {
  const [across, up] = [find("columns").value, find("rows").value];
  const groups = distinct(across);
  const few = points.length <= 16;
  return groups.map((group, number) => {
    const own = points.filter(({ cell }) => valueOf(cell, across) === group);
    return {
      type: "scatter", mode: few ? "markers+text" : "markers", name: plain(group),
      x: own.map(({ x }) => x), y: own.map(({ y }) => y),
      text: own.map(({ cell }) => plain(up === "" ? "" : valueOf(cell, up) ?? "")),
      textposition: "top right", textfont: { size: 11, color: theme().quiet },
      hovertext: own.map(({ cell }) => hoverOf(cell)), hoverinfo: "text",
      customdata: own.map(({ cell }) => data.cells.indexOf(cell)), cliponaxis: false,
      marker: { size: 10, color: COLOURS[number % COLOURS.length],
        symbol: SYMBOLS[Math.floor(number / COLOURS.length + number) % SYMBOLS.length] },
    };
  }).filter((trace) => trace.x.length);
}

function frontTrace(points, lower) {
  const best = frontOf(points, lower);
  return {
    type: "scatter", mode: "lines", name: "Pareto front", x: best.map(({ x }) => x),
    y: best.map(({ y }) => y), hoverinfo: "skip",
    line: { color: theme().quiet, width: 1.2, dash: "dot", shape: "hv" },
  };
}

function otherTrace(name, points, marker) {
  return {
    type: "scatter", mode: "markers", name, x: points.map(({ x }) => x),
    y: points.map(({ y }) => y), hovertext: points.map(({ text }) => text), hoverinfo: "text",
    cliponaxis: false, marker: { size: 11, color: theme().text, ...marker },
  };
}

function costChart(id, metric, title, costs, more) {
  const lower = metricOf(metric).lower;
  const points = data.cells
    .map((cell) => ({ cell, x: costs.cell(cell), y: cell.scores[metric] }))
    .filter(({ x, y }) => x != null && y != null);
  if (!points.length) return empty(id, `No finished cell has ${costs.what} yet.`);
  const others = (list, x, text) => list
    .map((item) => ({ x: x(item), y: item.scores[metric], text: text(item) }))
    .filter((point) => point.x != null && point.y != null);
  const teachers = others(data.teachers, costs.teacher, (item) => `<b>teacher</b><br>${
    plain(metric)} ${scoreText(item.scores[metric], metric)}<br>${costs.text(costs.teacher(item))}`);
  const published = others(data.published, costs.published, (item) => `<b>${plain(item.method)} ${
    plain(item.cell)}</b>  published<br>${plain(metric)} ${item.scores[metric]}<br>${
    bytesText(item.bytes)} nominal<br>${plain(item.source.slice(0, 90))}`);
  const traces = () => [
    ...(lower == null || points.length < 2 ? [] : [frontTrace(points, lower)]),
    ...studentTraces(points),
    ...(published.length ? [otherTrace("published", published, { symbol: "diamond-open" })] : []),
    ...(teachers.length ? [otherTrace("teacher", teachers, { symbol: "star", size: 13 })] : []),
  ];
  const label = plain(metric + directionText(metricOf(metric)));
  const layout = () => ({
    xaxis: axis(title, more), yaxis: axis(label), showlegend: true,
    legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", font: { size: 11 } },
    margin: { l: 8, r: 24, t: 40, b: 8 },
  });
  find(id).setAttribute("aria-label", `${metric} against ${title}; the numbers are in the table.`);
  draw(onceCleared(id), traces, layout, 400);
  find(id).removeAllListeners?.("plotly_click");
  find(id).on("plotly_click", ({ points: [point] }) => {
    if (point.customdata != null) showCell(point.customdata);
  });
}

function drawCosts() {
  const metric = find("metric").value;
  const [size, time] = [find("size").value, find("time").value];
  const words = size === "stored" ? "size on disk" : `${sizeName(size)} size`;
  costChart("by-size", metric, `${plain(words)}, MiB`, {
    what: "a size", text: (x) => bytesText(x * MEBI),
    cell: (cell) => (cell.sizes[size] ? cell.sizes[size] / MEBI : null),
    teacher: ({ bytes }) => (bytes ? bytes / MEBI : null),
    published: ({ bytes }) => bytes / MEBI,
  }, LOGARITHMIC);
  const key = time === "packed" ? "packed_seconds_an_item" : "seconds_an_item";
  const times = [...data.cells.map((c) => c[key]), ...data.teachers.map((t) => t.seconds_an_item)]
    .filter((seconds) => seconds);
  const longest = Math.max(0, ...times);
  const [unit, scale] = longest < 0.2 ? ["ms", 1000] : ["s", 1];
  const farApart = longest > FAR_APART * Math.min(...times);
  const scaled = (seconds) => (seconds ? seconds * scale : null);
  const whose = time === "packed" ? "the packed file" : "the student";
  costChart("by-time", metric, `generation time of ${whose}, ${unit} an item`, {
    what: "a time", text: (x) => `${secondsText(x / scale)} an item`,
    cell: (cell) => scaled(cell[key]), published: () => null,
    teacher: (teacher) => scaled(teacher.seconds_an_item),
  }, farApart ? LOGARITHMIC : { rangemode: "tozero" });
  const hollow = data.published.length
    ? " Hollow: published rows on the same data set and metric, at their nominal size." : "";
  const any = data.cells.some((cell) => Object.keys(cell.scores).length);
  find("cost-note").textContent = !any ? "" : `Marker: ${NAMES[find("columns").value] ?? find("columns").value}; `
    + `label: ${NAMES[find("rows").value] ?? find("rows").value}. Dotted: Pareto front of the `
    + `students. Star: teacher.${hollow} Size is logarithmic${farApart ? ", time too" : ""}; `
    + "times are clocks of the machine that ran the cell.";
}
