// Numbers and statuses as people read them.

const MINUS = "\u2212";
const NOTHING = "\u2013";
const SIGNS = {
  finished: "\u25cf", running: "\u25d4", interrupted: "\u25d1", failed: "\u2715",
  unreadable: "?", queued: "\u25cb",
};
const STATUSES = Object.keys(SIGNS);

function scoreText(value, metric, sign = false) {
  if (value == null) return NOTHING;
  const known = [
    ...data.cells.map((cell) => cell.scores[metric]),
    ...data.teachers.map((teacher) => teacher.scores[metric]),
  ].filter((other) => other != null);
  const digits = Math.max(0, ...known.map(Math.abs)) > 1 ? 2 : 4;
  const text = Math.abs(value).toFixed(digits);
  const zero = Number(text) === 0;
  return (value < 0 && !zero ? MINUS : sign ? (zero ? "\u00b1" : "+") : "") + text;
}

function bytesText(bytes) {
  if (bytes == null) return NOTHING;
  let unit = "B";
  for (const larger of ["KiB", "MiB", "GiB"]) {
    if (bytes < 1024) break;
    bytes /= 1024;
    unit = larger;
  }
  return unit === "B" ? `${bytes} B` : `${bytes.toFixed(2)} ${unit}`;
}

function ratioText(ratio) {
  return ratio == null ? NOTHING : `${ratio.toFixed(ratio < 10 ? 2 : 1)}\u00d7`;
}

// Every single one is 100 %, and only that.
function shareText(share) {
  if (share == null) return NOTHING;
  return share === 1 ? "100 %" : `${Math.min(100 * share, 99.99).toFixed(2)} %`;
}

function sizeName(key) {
  const names = { stored: "on disk", student_packed: "packed, before compression" };
  return names[key] ?? key.replace("student_", "").replaceAll("_", " ");
}

// The one size that heads and hints name: on disk where every cell has that, else nominal.
function mainSize(cell) {
  const ratio = data.size === "stored" ? cell.stored_ratio : cell.ratio;
  return { bytes: cell.sizes[data.size], ratio, name: sizeName(data.size) };
}

function secondsText(seconds) {
  if (seconds == null) return NOTHING;
  if (seconds < 0.1) return `${Number((seconds * 1000).toPrecision(3))} ms`;
  if (seconds < 60) return `${Number(seconds.toPrecision(3))} s`;
  const minutes = Math.round(seconds) / 60;
  const two = (number) => String(Math.floor(number)).padStart(2, "0");
  if (minutes < 60) return `${Math.floor(minutes)} min ${two(Math.round(seconds) % 60)} s`;
  return `${Math.floor(minutes / 60)} h ${two(minutes % 60)} min`;
}

function countText(number) {
  return number.toLocaleString("en-US");
}

function dateText(iso) {
  const date = new Date(iso);
  if (Number.isNaN(date.getTime())) return String(iso);
  const two = (number) => String(number).padStart(2, "0");
  const day = `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
  return `${day} ${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
}

// Why a cell shows no numbers: its progress, its error, or that its turn has not come.
function noteOf(cell) {
  if (cell.status === "running") return progressText(cell.progress);
  if (cell.status === "queued") return "waits for its turn";
  return cell.error || "";
}

function progressText(progress) {
  const parts = [];
  if (progress.stage) parts.push(progress.stage);
  if (progress.steps) {
    const share = Math.floor((100 * (progress.step || 0)) / progress.steps);
    parts.push(`step ${countText(progress.step || 0)} of ${countText(progress.steps)} (${share} %)`);
  }
  for (const [name, value] of Object.entries(progress.validation || {})) {
    if (typeof value === "number") parts.push(`validation ${name} ${scoreText(value, name)}`);
  }
  return parts.join(" · ") || "started";
}

function metricOf(name) {
  return data.metrics.find((metric) => metric.name === name) || { name, lower: null };
}

function directionText(metric) {
  if (metric.lower == null) return "";
  return metric.lower ? " (lower is better)" : " (higher is better)";
}

// Numbers inside a text count as numbers: 16-16-8 comes after 8-8-8.
const byNumbers = new Intl.Collator("en", { numeric: true }).compare;

// A line below a part; what only a screen can do is left out on paper.
function note(id, text, hint = "") {
  find(id).replaceChildren(text, element("span", { class: "controls" }, hint && ` ${hint}`));
}
