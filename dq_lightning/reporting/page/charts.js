// What all charts share: colours of the page's theme, quiet axes, redrawing.

// Okabe and Ito's colours, without the yellow that white paper swallows.
const COLOURS = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9"];
const DASHES = ["solid", "dash", "dot", "dashdot"];
const SYMBOLS = ["circle", "square", "triangle-up", "diamond", "triangle-down", "pentagon"];

const drawn = new Map(); // chart's id -> how to draw it again

function theme() {
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(name).trim();
  return { text: colour("--text"), quiet: colour("--quiet"), line: colour("--line"),
    paper: colour("--paper"), soft: colour("--soft") };
}

// plotly reads a little HTML in its texts; a name must not be taken for it.
function plain(text) {
  return String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}

function axis(title, more = {}) {
  const { quiet, line } = theme();
  return {
    title: { text: title, font: { size: 12, color: quiet }, standoff: 8 },
    gridcolor: line, linecolor: line, zeroline: false, ticks: "", tickfont: { size: 12 },
    automargin: true, ...more,
  };
}

function draw(id, traces, layout, height) {
  const { text, paper } = theme();
  drawn.set(id, () => draw(id, traces, layout, height));
  const whole = {
    height, margin: { l: 8, r: 8, t: 12, b: 8 }, paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)", hovermode: "closest", showlegend: false,
    font: { family: "system-ui, sans-serif", size: 12, color: text },
    hoverlabel: { bgcolor: paper, bordercolor: text, font: { color: text, size: 12 }, align: "left" },
    ...layout(),
  };
  return Plotly.react(id, traces(), whole, { displayModeBar: false, responsive: true });
}

// A chart that has nothing to show says why instead.
function empty(id, text) {
  drawn.delete(id);
  Plotly.purge(id);
  find(id).replaceChildren(element("p", { class: "empty" }, text));
}

function redraw() {
  for (const again of drawn.values()) again();
}

function onceCleared(id) {
  const place = find(id);
  if (place.firstElementChild?.className === "empty") place.replaceChildren();
  return id;
}
