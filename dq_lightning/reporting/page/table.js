// All cells with their numbers; those without numbers say why.

const METRICS = data.metrics.map((metric) => metric.name);

// Keys that the cell's name does not tell.
const TOLD = KEYS.filter((key) => !["bits", "layers", "quant.bits", "student.layers"].includes(key));
const EXTRA = TOLD.length > 4 ? [] : TOLD; // more would hide the numbers

const COLUMNS = [
  { key: "cell", title: "cell", value: (_, index) => index, text: (cell) => cell.name, words: true },
  { key: "status", title: "status", value: (cell) => STATUSES.indexOf(cell.status), words: true,
    text: (cell) => `${SIGNS[cell.status] || ""} ${cell.status}` },
  ...EXTRA.map((key) => ({ key: `setting ${key}`, title: key, words: true,
    value: (cell) => cell.settings[key] ?? null, text: (cell) => cell.settings[key] ?? NOTHING })),
  ...METRICS.flatMap((name) => [
    { key: name, title: name, value: (cell) => cell.scores[name],
      text: (cell) => scoreText(cell.scores[name], name) },
    { key: `${name} drop`, title: "drop", value: (cell) => cell.drop[name],
      text: (cell) => scoreText(cell.drop[name], name, true) },
  ]),
  { key: "size", title: "nominal size", value: (cell) => cell.sizes.student_nominal,
    text: (cell) => bytesText(cell.sizes.student_nominal) },
  { key: "ratio", title: "ratio", value: (cell) => cell.ratio, text: (cell) => ratioText(cell.ratio) },
  { key: "stored", title: "on disk", value: (cell) => cell.sizes.stored,
    text: (cell) => bytesText(cell.sizes.stored) },
  { key: "stored ratio", title: "ratio", value: (cell) => cell.stored_ratio,
    text: (cell) => ratioText(cell.stored_ratio) },
  { key: "item", title: "time an item", value: (cell) => cell.seconds_an_item,
    text: (cell) => secondsText(cell.seconds_an_item) },
  { key: "packed item", title: "packed time an item", value: (cell) => cell.packed_seconds_an_item,
    text: (cell) => secondsText(cell.packed_seconds_an_item) },
  { key: "speedup", title: "speed-up", value: (cell) => cell.speedup,
    text: (cell) => ratioText(cell.speedup) },
  { key: "seconds", title: "whole run", value: (cell) => cell.seconds,
    text: (cell) => secondsText(cell.seconds) },
];

function compareValues(a, b) {
  return typeof a === "number" ? a - b : byNumbers(String(a), String(b));
}

// Missing numbers come last in either direction.
function sortedCells() {
  const { key, down } = choices.sort || { key: "cell", down: false };
  const column = COLUMNS.find((other) => other.key === key) || COLUMNS[0];
  const entries = data.cells.map((cell, index) => ({ cell, index, value: column.value(cell, index) }));
  return entries.sort((a, b) => {
    if (a.value == null || b.value == null) return (a.value == null) - (b.value == null);
    return (down ? -1 : 1) * compareValues(a.value, b.value) || a.index - b.index;
  });
}

function isShown(cell) {
  if ((choices.hidden || []).includes(cell.status)) return false;
  const text = [cell.label, cell.status, noteOf(cell), ...cell.overrides, cell.run_dir].join(" ");
  return find("filter").value.toLowerCase().split(/\s+/)
    .every((word) => text.toLowerCase().includes(word));
}

function headOf(column) {
  const sort = choices.sort || { key: "cell", down: false };
  const own = sort.key === column.key;
  const direction = own ? (sort.down ? "descending" : "ascending") : "none";
  const onclick = () => {
    choose("sort", { key: column.key, down: own && !sort.down });
    drawTable();
    find("table").querySelector(`[data-key="${CSS.escape(column.key)}"]`).focus();
  };
  const arrow = own ? (sort.down ? " \u2193" : " \u2191") : "";
  const classes = column.words ? "words" : null;
  return element("th", { scope: "col", "aria-sort": direction, class: classes },
    element("button", { type: "button", onclick, "data-key": column.key }, column.title + arrow));
}

function rowOf(cell, index) {
  const attributes = { class: `is-${cell.status}`, "data-index": index,
    "aria-current": choices.cell === cell.label ? "true" : null };
  const numbers = COLUMNS.slice(2 + EXTRA.length);
  const lead = COLUMNS.slice(0, 2 + EXTRA.length).map((column, number) =>
    element(number ? "td" : "th", { scope: number ? null : "row", class: "words",
      title: number ? null : cell.run_dir }, number || EXTRA.length ? column.text(cell) : cell.label));
  if (!Object.keys(cell.scores).length) {
    const note = element("td", { class: "words note", colspan: numbers.length }, noteOf(cell));
    return element("tr", attributes, ...lead, note);
  }
  return element("tr", attributes, ...lead,
    ...numbers.map((column) => element("td", {}, column.text(cell))));
}

function teacherRow(teacher) {
  const text = (column) => {
    if (METRICS.includes(column.key)) return scoreText(teacher.scores[column.key], column.key);
    if (["size", "stored"].includes(column.key)) return bytesText(teacher.bytes);
    if (["ratio", "stored ratio", "speedup"].includes(column.key)) return ratioText(1);
    return column.key === "item" ? secondsText(teacher.seconds_an_item) : "";
  };
  return element("tr", { class: "teacher" }, element("th", { scope: "row", class: "words" }, "teacher"),
    ...COLUMNS.slice(1).map((column) => element("td", { class: column.words ? "words" : null },
      text(column))));
}

function drawTable() {
  const shown = sortedCells().filter(({ cell }) => isShown(cell));
  const body = shown.map(({ cell, index }) => rowOf(cell, index));
  find("table").replaceChildren(
    element("thead", {}, element("tr", {}, ...COLUMNS.map(headOf))),
    element("tbody", { class: "teachers" }, ...data.teachers.map(teacherRow)),
    element("tbody", { class: "cells" }, ...body));
  find("shown").textContent = shown.length === data.cells.length ? ""
    : `${shown.length} of ${data.cells.length} cells`;
  note("table-note", "A positive drop is worse than the teacher. Nominal size counts parameters at "
    + "their bits, without scales; on disk is the packed file, tokenizer and all. Both ratios are "
    + "against the teacher's float32 bytes, the speed-up is the packed file's.", "A click on a title sorts, another one turns round.");
  drawStatuses();
}

function drawStatuses() {
  const present = STATUSES.filter((status) => data.cells.some((cell) => cell.status === status));
  const hidden = choices.hidden || [];
  find("statuses").replaceChildren(...(present.length < 2 ? [] : present.map((status) => toggle(
    `${SIGNS[status]} ${status}`, !hidden.includes(status), () => {
      choose("hidden", hidden.includes(status)
        ? hidden.filter((other) => other !== status) : [...hidden, status]);
      drawTable();
    }))));
}
