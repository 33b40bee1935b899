// While the sweep runs the page loads itself again, at the reader's place and never in mid-word.

const EVERY = 10_000; // ms
const QUIET = 4_000;
let touched = 0;

function ageText() {
  const seconds = Math.max(0, (Date.now() - new Date(data.written).getTime()) / 1000);
  if (seconds < 60) return "just now";
  const minutes = Math.floor(seconds / 60);
  return minutes < 120 ? `${minutes} min ago` : `${Math.floor(minutes / 60)} h ago`;
}

function drawWritten() {
  const age = data.live ? ` (${ageText()})` : "";
  find("written").textContent = `written ${dateText(data.written)}${age}`;
}

function load() {
  const focused = document.activeElement;
  choose("place", { focus: focused?.id || null, at: focused?.selectionStart ?? null });
  location.reload();
}

// The browser itself scrolls back, since everything is drawn when the page has loaded.
function restore() {
  const place = choices.place;
  if (!place) return;
  choose("place", null);
  const focused = place.focus && find(place.focus);
  if (!focused) return;
  focused.focus({ preventScroll: true });
  if (place.at != null && focused.setSelectionRange) focused.setSelectionRange(place.at, place.at);
}

function keepUpToDate() {
  if (!data.live) return;
  find("updating").hidden = false;
  remembered("update", "checked", true, () => {});
  for (const event of ["pointerdown", "keydown", "wheel"]) {
    addEventListener(event, () => { touched = Date.now(); }, { passive: true });
  }
  let waited = 0;
  setInterval(() => {
    drawWritten();
    waited += 1_000;
    const idle = Date.now() - touched > QUIET && !document.hidden;
    if (waited >= EVERY && idle && find("update").checked) load();
  }, 1_000);
}

// Paper is white and narrower than a screen.
function forPaper(printing) {
  document.documentElement.classList.toggle("paper", printing);
  redraw();
  for (const id of drawn.keys()) {
    const width = { heatmap: 680 }[id] || (id.startsWith("curve-") ? 220 : 335);
    if (printing) Plotly.relayout(id, { width });
    else Plotly.relayout(id, { width: null, autosize: true });
  }
}

addEventListener("beforeprint", () => forPaper(true));
addEventListener("afterprint", () => forPaper(false));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
drawWritten();
restore();
keepUpToDate();
