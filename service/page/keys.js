// Single-key shortcuts, their help, and the dialog that asks for a token.

import { $, fill, h } from "./dom.js";
import { keep, kept } from "./storage.js";

const KEY = "tradent-keys-off";
const HELP = [
  ["[ ]", "market before, market after"],
  ["j k", "next, previous verdict"],
  ["Enter", "open the verdict or signal in focus"],
  ["c", "to the chart"],
  ["← →", "in the chart: from bar to bar (with Shift: ten)"],
  [", .", "in the chart: from signal to signal"],
  ["+ −", "in the chart: zoom"],
  ["Home End", "in the chart: all bars, newest bar"],
  ["t", "table instead of chart"],
  ["d", "dark, light, as the system"],
  ["p", "pause or resume rating"],
  ["?", "this help"],
  ["Esc", "close"],
];

/** `acts` maps a key to what it does. They rest while something is typed, a dialog is open, or they are switched off. */
export function listenToKeys(acts) {
  const off = $("keys");
  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    if (event.target.closest("input, select, textarea, dialog") || document.querySelector("dialog[open]")) return;
    if (event.key !== "?" && kept("localStorage", KEY)) return;
    const act = event.key === "?" ? openHelp : acts[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  });
  $("help").addEventListener("click", openHelp);
  off.addEventListener("click", (event) => event.target === off && off.close());
}

function openHelp() {
  const dialog = $("keys");
  const box = h("input", { type: "checkbox", onchange: () => keep("localStorage", KEY, box.checked ? "" : "1") });
  box.checked = !kept("localStorage", KEY);
  fill(
    dialog,
    h("h2", { id: "keys-title" }, "Keyboard"),
    h(
      "dl",
      { class: "keys" },
      HELP.map(([keys, what]) => [
        h(
          "dt",
          {},
          keys.split(" ").map((key) => h("kbd", {}, key)),
        ),
        h("dd", {}, what),
      ]),
    ),
    h("label", { class: "check" }, box, "Single keys do something"),
    h(
      "div",
      { class: "buttons" },
      h("button", { type: "button", class: "strong", onclick: () => dialog.close() }, "Close"),
    ),
  );
  dialog.showModal();
}

/** Ask for a token once; `onToken(token)` gets it. `admin` says that a stronger one is needed than the one there is. */
export function askForToken(onToken, why, admin = false) {
  const dialog = $("gate");
  const input = h("input", {
    type: "password",
    name: "token",
    required: true,
    autocomplete: "off",
    spellcheck: "false",
    pattern: "\\s*[!-~]+\\s*",
    title: "Letters, digits and signs of ASCII, without blanks",
    "aria-describedby": "gate-text",
  });
  const form = h(
    "form",
    { method: "dialog", onsubmit: () => onToken(input.value.trim()) },
    h("h2", { id: "gate-title" }, admin ? "This needs the admin token" : "This daemon asks for a token"),
    h(
      "p",
      { id: "gate-text" },
      admin
        ? "Pausing and resuming is for whoever holds TRADENT_ADMIN_TOKEN. "
        : "It is the TRADENT_READ_TOKEN or TRADENT_ADMIN_TOKEN that the daemon was started with. ",
      "It stays in this tab and is forgotten when the tab is closed.",
    ),
    why ? h("p", { class: "warn" }, why) : null,
    h("label", {}, "Token", input),
    h(
      "div",
      { class: "buttons" },
      admin ? h("button", { type: "button", onclick: () => dialog.close() }, "Cancel") : null,
      h("button", { type: "submit", class: "strong" }, admin ? "Use it" : "Open"),
    ),
  );
  fill(dialog, form);
  if (!dialog.open) dialog.showModal();
  input.focus();
}
