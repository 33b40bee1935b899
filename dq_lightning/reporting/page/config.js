// What two cells were told differently.

const CONFIGURED = data.cells.map((_, index) => index).filter((index) => data.configs[index]);

function drawConfigs() {
  if (CONFIGURED.length < 2) {
    find("config-note").textContent = "Two cells with a config are needed for a comparison.";
    return;
  }
  const pair = ["config-a", "config-b"].map((id) => Number(find(id).value));
  const [a, b] = pair.map((index) => data.configs[index]);
  const keys = [...new Set([...Object.keys(a), ...Object.keys(b)])].sort(byNumbers)
    .filter((key) => a[key] !== b[key]);
  const value = (config, key) => element("td", { class: "words" },
    key in config ? element("code", {}, config[key]) : element("i", {}, "not set"));
  find("config").replaceChildren(
    element("thead", {}, element("tr", {}, element("th", { scope: "col", class: "words" }, "key"),
      ...pair.map((index) => element("th", { scope: "col", class: "words" }, data.cells[index].label)))),
    element("tbody", {}, ...keys.map((key) => element("tr", {},
      element("th", { scope: "row", class: "words" }, element("code", {}, key)),
      value(a, key), value(b, key)))));
  find("config-note").textContent = keys.length
    ? `${keys.length} ${keys.length === 1 ? "key differs" : "keys differ"}; paths and loggers are left out.`
    : "The two configs are the same (paths and loggers aside).";
}
