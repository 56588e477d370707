// Dark and light: as the system, or as chosen here. The choice stays in this browser.

import { $ } from "./dom.js";
import { keep, kept } from "./storage.js";

const CHOICES = ["", "light", "dark"];
const WORDS = { "": "as the system", light: "light", dark: "dark" };
const MEDIA = { "": "(prefers-color-scheme: dark)", light: "not all", dark: "all" };
const KEY = "tradent-theme";

/** `onChange` is called when colours have changed, by choice or by the system. */
export function followTheme(onChange) {
  const set = (choice) => {
    document.documentElement.dataset.theme = choice;
    $("dark").media = MEDIA[choice];
    const button = $("theme");
    button.title = `Colours: ${WORDS[choice]} (d)`;
    button.setAttribute("aria-label", `Colours: ${WORDS[choice]}`);
    onChange();
  };
  const before = kept("localStorage", KEY);
  let choice = CHOICES.includes(before) ? before : "";
  const turn = () => {
    choice = CHOICES[(CHOICES.indexOf(choice) + 1) % CHOICES.length];
    keep("localStorage", KEY, choice);
    set(choice);
  };
  $("theme").addEventListener("click", turn);
  for (const media of ["(prefers-color-scheme: dark)", "(forced-colors: active)"]) {
    matchMedia(media).addEventListener("change", onChange);
  }
  $("dark").addEventListener("load", onChange);
  set(choice);
  return turn;
}
