// Numbers with their units, times, and tables. Text goes in as text, never as HTML.

export const number = (value, digits = 0) => value == null ? "–"
  : value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
export const metric = value => value == null ? "–" : value.toFixed(4);
export const share = value => value == null ? "–" : `${number(100 * value, value > 0 && value < 0.1 ? 1 : 0)} %`;
export const minute = ms => ms == null ? "–" : `${new Date(ms).toISOString().slice(0, 16).replace("T", " ")} UTC`;
export const day = ms => new Date(ms).toISOString().slice(0, 10);

export function age(ms) {
  const s = Math.max(0, ms) / 1000;
  if (s < 90) return `${s.toFixed(0)} s`;
  if (s < 5400) return `${(s / 60).toFixed(0)} min`;
  return s < 129600 ? `${(s / 3600).toFixed(0)} h` : `${(s / 86400).toFixed(0)} d`;
}

export function element(tag, content, attributes = {}) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value != null) made.setAttribute(name, value);
  }
  made.append(...[content].flat().filter(part => part != null));
  return made;
}

export const button = (label, onclick, attributes = {}) => element("button", label, { type: "button", onclick, ...attributes });

// Only long texts may break: a broken figure cannot be read.
const cell = content => content instanceof Node ? element("td", content)
  : element("td", String(content ?? ""), { class: String(content ?? "").length > 28 ? "text" : null });

// Fills a table; an element as a cell goes in as it is. A focused control keeps its focus by its data-key.
export function fill(id, head, rows, empty) {
  const table = document.getElementById(id);
  table.hidden = !rows.length && !empty;
  const focused = table.contains(document.activeElement) ? document.activeElement.dataset.key : null;
  const text = JSON.stringify(rows.map(cells => cells.map(c => c instanceof Node ? c.textContent : c)));
  // What has not changed stays: a button that is replaced under the pointer loses its click.
  if (table.dataset.shown === text) return;
  table.dataset.shown = text;
  const header = element("thead", element("tr", head.map(name => element("th", name, { scope: "col" }))));
  const body = rows.length
    ? rows.map(cells => element("tr", cells.map(cell)))
    : [element("tr", element("td", empty, { class: "empty", colspan: head.length }))];
  table.replaceChildren(header, element("tbody", body));
  if (focused) table.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus();
}
