"use strict";
// The data, what the reader has chosen (kept over reloads of this tab), and how elements are made.

const data = JSON.parse(document.getElementById("data").textContent);
const find = (id) => document.getElementById(id);

const KEPT = `dq_lightning:${location.pathname}`;
const choices = readChoices();

function readChoices() {
  try {
    return JSON.parse(sessionStorage.getItem(KEPT)) || {};
  } catch {
    return {}; // storage may be switched off
  }
}

function choose(key, value) {
  choices[key] = value;
  try {
    sessionStorage.setItem(KEPT, JSON.stringify(choices));
  } catch {
    // then nothing outlives the page
  }
}

// Texts of the data only ever become text nodes: nothing in them is read as HTML.
function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value != null) made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child != null));
  return made;
}

// A <select> that remembers its choice; options are [value, text] pairs, onchange draws.
function chooser(id, options, fallback, onchange) {
  const select = find(id);
  select.replaceChildren(...options.map(([value, text]) => element("option", { value }, text)));
  const known = (value) => options.some(([other]) => other === value);
  const key = select.dataset.key || id;
  select.value = known(choices[key]) ? choices[key] : fallback;
  select.parentElement.hidden = options.length < 2; // nothing to choose
  select.addEventListener("change", () => {
    choose(key, select.value);
    onchange();
  });
  return select;
}

function listed(id) {
  return [...find(id).options].map((option) => [option.value, option.text]);
}

// Inputs: a text or a tick that is remembered.
function remembered(id, property, fallback, onchange) {
  const input = find(id);
  input[property] = choices[id] ?? fallback;
  input.addEventListener(property === "checked" ? "change" : "input", () => {
    choose(id, input[property]);
    onchange();
  });
  return input;
}

function toggle(text, pressed, onclick, colour, title) {
  const swatch = colour && element("span", { class: "swatch", "aria-hidden": "true" });
  if (swatch) swatch.style.background = colour;
  return element("button", { type: "button", "aria-pressed": String(pressed), onclick, title },
    swatch, text);
}
