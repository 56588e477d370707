// What this browser keeps: the choice of colours for good, the token for as long as the tab is open. Where it keeps
// nothing, or may not, what is chosen holds until the page is closed.

const here = new Map();

/** The text kept under `key`, "" where there is none. `area` is "localStorage" or "sessionStorage". */
export function kept(area, key) {
  try {
    return window[area].getItem(key) ?? "";
  } catch {
    return here.get(key) ?? "";
  }
}

/** Keep a text; "" forgets it. */
export function keep(area, key, text) {
  here.set(key, text);
  try {
    if (text) window[area].setItem(key, text);
    else window[area].removeItem(key);
  } catch {
    // it is here, at least
  }
}
