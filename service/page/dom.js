// Building elements. Text always goes in as text: there is no way here to hand over markup.

const SVG = "http://www.w3.org/2000/svg";

/** An element with properties (`class`, attributes, `on…` listeners) and children: elements, text, or null for none. */
export function h(tag, props = {}, ...children) {
  const element = tag === "svg" || tag === "path" ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(
    ...children
      .flat(Infinity)
      .filter((child) => child !== null && child !== undefined && child !== false)
      .map((child) => (child instanceof Node ? child : document.createTextNode(String(child)))),
  );
  return element;
}

export const $ = (id) => document.getElementById(id);

/** Put `children` where there were others; a loading state ends with it. */
export function fill(element, ...children) {
  element.classList.remove("loading");
  element.removeAttribute("aria-busy");
  element.replaceChildren(...children.flat(Infinity).filter(Boolean));
}

/** Set text only where it changes, so that 60 updates a second cost no layout that nobody sees. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Texts in a row with dots between them, those that are there; none can turn the direction of the others. */
export const listed = (texts) => texts.filter(Boolean).map((text, at) => [at ? " · " : null, h("bdi", {}, text)]);

/** The badge of a rating: a number on its colour, or a sign for why there is none. */
export function badge(item) {
  const state = stateOf(item);
  if (state === "rated")
    return h(
      "b",
      { class: `chip r${item.rating}`, role: "img", "aria-label": `rated ${item.rating} of 5` },
      item.rating,
    );
  const said = { role: "img", "aria-label": STATES[state], title: STATES[state] };
  return h("b", { class: `chip none ${state}`, ...said }, SIGNS[state]);
}

/** The signs for why there is no rating. */
export const SIGNS = {
  waiting: "…",
  abstained: "–",
  unscored: "–",
  failed: "×",
  expired: "×",
  skipped: "○",
  unrated: "○",
};

export const STATES = {
  rated: "rated",
  waiting: "waits for its rating",
  abstained: "no rating could be given",
  unscored: "answered without a rating",
  failed: "rating failed",
  expired: "too late to rate",
  skipped: "not to be rated",
  unrated: "no rating was asked for",
};

/** What became of a signal, in one word. */
export function stateOf(item) {
  if (item.rating !== null && item.rating !== undefined) return "rated";
  if (item.status === null) return "unrated";
  if (item.status === "completed") return item.abstention ? "abstained" : "unscored";
  if (["failed", "expired", "skipped"].includes(item.status)) return item.status;
  return "waiting";
}

/** A state of a part: what is the matter, and what to do. */
export function note(title, text, ...more) {
  return [h("b", {}, title), text ? h("span", {}, text) : null, ...more].filter(Boolean);
}

/** Rows of text under their names, to be scrolled where they are wider than the window. */
export function table(label, names, rows) {
  const row = (cell, texts) =>
    h(
      "tr",
      {},
      texts.map((text) => h(cell, cell === "th" ? { scope: "col" } : {}, text)),
    );
  return h(
    "div",
    { class: "scroll", tabindex: "0", role: "region", "aria-label": label },
    h(
      "table",
      {},
      h("thead", {}, row("th", names)),
      h(
        "tbody",
        {},
        rows.map((texts) => row("td", texts)),
      ),
    ),
  );
}
