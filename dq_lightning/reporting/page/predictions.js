// What teacher and student wrote for the same test item, side by side.

const PAGE = 20;
const WRITERS = data.predictions.students.map((_, index) => index)
  .filter((index) => data.predictions.students[index]);

// Longest common subsequence: which parts of `a` and of `b` the other has too.
function common(a, b) {
  const width = b.length + 1;
  const lengths = new Uint16Array((a.length + 1) * width);
  for (let i = a.length - 1; i >= 0; i -= 1) {
    for (let j = b.length - 1; j >= 0; j -= 1) {
      lengths[i * width + j] = a[i] === b[j] ? lengths[(i + 1) * width + j + 1] + 1
        : Math.max(lengths[(i + 1) * width + j], lengths[i * width + j + 1]);
    }
  }
  const [inA, inB] = [a.map(() => false), b.map(() => false)];
  for (let i = 0, j = 0; i < a.length && j < b.length;) {
    if (a[i] === b[j]) [inA[i++], inB[j++]] = [true, true];
    else if (lengths[(i + 1) * width + j] >= lengths[i * width + j + 1]) i += 1;
    else j += 1;
  }
  return [inA, inB];
}

function partsOf(text) {
  return find("unit").value === "words" ? text.match(/\S+/gu) || [] : Array.from(text);
}

// The parts of a text as nodes, those that the other text lacks marked.
function marked(parts, shared, className) {
  const joint = find("unit").value === "words" ? " " : "";
  const runs = [];
  parts.forEach((part, at) => {
    const last = runs[runs.length - 1];
    if (last && last.shared === shared[at]) last.parts.push(part);
    else runs.push({ shared: shared[at], parts: [part] });
  });
  return runs.flatMap((run, at) => {
    const text = run.parts.join(joint);
    const node = run.shared ? text : element("mark", { class: className }, text);
    return at && joint ? [joint, node] : [node];
  });
}

function compared(other, student) {
  const [a, b] = [partsOf(other), partsOf(student)];
  const [inA, inB] = common(a, b);
  return [marked(a, inA, "minus"), marked(b, inB, "plus")];
}

function itemsOf(writer, against) {
  const { set, texts } = data.predictions.students[writer];
  const { numbers, sources, references, teacher } = data.predictions.sets[set];
  const second = data.predictions.students[Number(against)];
  return numbers.map((number, at) => {
    let other = teacher[at];
    if (against === "reference") {
      other = references[at].includes(texts[at]) ? texts[at] : references[at][0];
    } else if (against !== "teacher") other = second?.set === set ? second.texts[at] : null;
    return { number, source: sources[at], references: references[at], teacher: teacher[at],
      student: texts[at], other: other ?? null };
  });
}

function matches(item, phrase) {
  const text = [item.number, item.source, ...item.references, item.teacher, item.student, item.other]
    .join("\n").toLowerCase();
  return text.includes(phrase);
}

function folded(text) {
  if (text == null) return NOTHING;
  if (text.length <= 280) return text;
  return element("details", {}, element("summary", {}, `${text.slice(0, 240)} \u2026`), text);
}

function predictionRow(item, against) {
  const student = item.student ?? "";
  const [left, right] = item.other == null ? [null, [student]] : compared(item.other, student);
  const cell = (title, ...nodes) => element("td", { class: "words", "data-title": title }, ...nodes);
  const reference = item.references.map((text) => element("div", {}, folded(text)));
  const teacher = item.teacher ?? NOTHING;
  const cells = [
    element("td", { "data-title": "item" }, countText(item.number)),
    cell("source", folded(item.source)),
    against === "reference" && left && item.references.length < 2 ? cell("reference", ...left)
      : cell("reference", ...reference),
    cell("teacher", ...(against === "teacher" && left ? left : [teacher])),
  ];
  if (isCell(against)) cells.push(cell(data.cells[Number(against)].label, ...(left || [NOTHING])));
  cells.push(cell("student", ...right));
  return element("tr", { class: item.other === item.student ? "same" : null }, ...cells);
}

function isCell(against) {
  return !["teacher", "reference"].includes(against);
}

function drawPredictions() {
  const writer = Number(find("student").value);
  if (!WRITERS.length) return noPredictions();
  const against = find("against").value;
  const phrase = find("search").value.toLowerCase();
  const items = itemsOf(writer, against);
  const found = items.filter((item) => matches(item, phrase)
    && (!find("differ").checked || item.other !== item.student));
  const pages = Math.max(1, Math.ceil(found.length / PAGE));
  const page = Math.min(choices.page || 0, pages - 1);
  const from = page * PAGE;
  const shown = found.slice(from, from + PAGE);
  const titles = ["item", "source", "reference", "teacher",
    ...(isCell(against) ? [data.cells[Number(against)].label] : []), data.cells[writer].label];
  find("predictions").replaceChildren(
    element("thead", {}, element("tr", {}, ...titles.map((title, at) =>
      element("th", { scope: "col", class: at ? "words" : null }, title)))),
    element("tbody", {}, ...shown.map((item) => predictionRow(item, against))));
  const range = found.length ? `${countText(from + 1)}\u2013${countText(from + shown.length)} of ` : "";
  find("place").textContent = `${range}${countText(found.length)} items`;
  find("previous").disabled = page === 0;
  find("next").disabled = page >= pages - 1;
  describePredictions(items.length, data.predictions.sets[data.predictions.students[writer].set].total);
}

function describePredictions(embedded, total) {
  const part = embedded < total
    ? `${countText(embedded)} of the ${countText(total)} test items, evenly spaced, are in this page; `
      + "predictions.jsonl in the run's folder holds all."
    : `All ${countText(total)} test items.`;
  find("texts-note").textContent = `${part} Marked: what only one of the compared texts has.`;
}

function noPredictions() {
  find("predictions").replaceChildren();
  find("pager").hidden = true;
  find("texts-note").textContent = "No finished cell has predictions yet.";
}

function turnPage(by) {
  choose("page", Math.max(0, (choices.page || 0) + by));
  drawPredictions();
}

function fromFirstPage() {
  choose("page", 0);
  drawPredictions();
}
