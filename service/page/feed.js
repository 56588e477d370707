// The feed of verdicts: newest first, each a button that opens it.

import { $, badge, fill, h, listed, note, setText, stateOf, STATES } from "./dom.js";
import { day, moment, percent, price, timeframeMs, usd } from "./format.js";

const PAGE = 40;
const PAGE_NARROW = 8;
const SAY_EVERY_MS = 6000;

export class Feed {
  /**
   * `onOpen(signal)` when one is chosen; `onOlder(more)` asks for older ones as long as `more()`; `current()` gives the
   * line that the chart shows. Up to `from` (ms) all are known, below it only those of some markets: these are left out
   * until it comes to them.
   */
  constructor(market, { onOpen, onOlder, current }) {
    this.market = market;
    this.onOpen = onOpen;
    this.onOlder = onOlder;
    this.current = current;
    this.from = -Infinity;
    this.list = $("feed");
    this.rows = new Map();
    this.shown = this.#page();
    this.saidAt = 0;
    this.unsaid = 0;
    this.ready = false;
    this.error = null;
    for (const id of ["only", "least"]) {
      $(id).addEventListener("change", () => {
        this.shown = this.#page();
        this.draw();
      });
    }
    $("more").addEventListener("click", () => this.#more());
  }

  async #more() {
    this.shown += PAGE;
    this.draw();
    $("more").disabled = true;
    await this.onOlder(() => this.#items().length < this.shown);
    $("more").disabled = false;
    this.draw();
  }

  #items() {
    return this.market.newest((item) => this.#keeps(item));
  }

  #page() {
    return matchMedia("(max-width: 719px)").matches ? PAGE_NARROW : PAGE;
  }

  #keeps(item) {
    const wanted = $("least").value;
    const least = Number(wanted);
    if ($("only").value === "this") {
      if (item.key !== this.current()?.key) return false;
    } else if (item.t < this.from && !item.told) return false;
    if (least === 0) return true;
    if (wanted === "allow") return item.decision === "allow";
    if (stateOf(item) !== "rated") return false;
    return least > 0 ? item.rating >= least : item.rating <= -least;
  }

  /** Bring the list in line with what is known; rows that stay are left alone. */
  draw() {
    const items = this.#items();
    const wanted = items.slice(0, this.shown);
    const olderAsked = this.from > -Infinity && $("only").value !== "this";
    $("more").hidden = !this.ready || (items.length <= this.shown && !olderAsked);
    const nothing = wanted.length === 0;
    this.list.hidden = nothing && this.ready;
    this.#note(nothing);
    if (nothing) {
      this.rows.clear();
      if (this.ready) fill(this.list);
      return;
    }
    this.list.classList.remove("loading");
    this.list.removeAttribute("aria-busy");
    const now = Date.now();
    const today = day(now);
    const rows = new Map();
    let before = null;
    for (const item of wanted) {
      const kept = this.rows.get(item.signal);
      const same = kept?.item === item && kept.today === today;
      const row = same ? kept : { item, today, element: rowOf(item, this.onOpen, now) };
      if (kept && kept !== row) {
        const focused = kept.element.contains(document.activeElement);
        kept.element.replaceWith(row.element);
        if (focused) row.element.querySelector("button").focus();
      }
      const next = before ? before.nextSibling : this.list.firstChild;
      if (next !== row.element) this.list.insertBefore(row.element, next);
      rows.set(item.signal, row);
      before = row.element;
    }
    while (before.nextSibling) before.nextSibling.remove();
    this.rows = rows;
  }

  /** What is said beside the list, or in its place where there is `nothing` in it. */
  #note(nothing) {
    const said = this.ready && (nothing || this.error) ? this.#words(nothing) : [];
    $("feed-note").hidden = said.length === 0;
    $("feed-note").replaceChildren(...(said.length ? note(...said) : []));
  }

  #words(nothing) {
    if (this.error)
      return [nothing ? "The verdicts could not be read" : "Older verdicts could not be read", this.error];
    if (this.market.signals.size) return ["Nothing here", "No signal fits what is chosen above."];
    return ["No signals yet", "A signal appears when a strategy finds one on a closed bar; its verdict follows."];
  }

  /** Tell a screen reader of a verdict: the last one and how many came, not more often than it can be heard. */
  say(item) {
    this.unsaid++;
    const now = Date.now();
    if (now - this.saidAt < SAY_EVERY_MS) return;
    this.saidAt = now;
    const more = this.unsaid > 1 ? `, and ${this.unsaid - 1} more` : "";
    this.unsaid = 0;
    setText($("said"), `${item.symbol} ${item.side}: ${ratingInWords(item)}${more}`);
  }

  /** Move the focus along the list. */
  step(direction) {
    const buttons = [...this.list.querySelectorAll("button")];
    const at = buttons.indexOf(document.activeElement);
    buttons[Math.max(0, Math.min(buttons.length - 1, at + direction))]?.focus();
  }
}

export const ratingInWords = (item) =>
  stateOf(item) === "rated" ? `rated ${item.rating} of 5` : STATES[stateOf(item)];

/** What is said of a signal that has no rating, or its rationale. */
export function reasonOf(item) {
  return (
    item.rationale || item.abstention || item.error || (stateOf(item) === "waiting" ? "Waits for its rating." : "")
  );
}

function rowOf(item, onOpen, now) {
  const state = stateOf(item);
  const sure = state === "rated" && item.confidence !== null ? `${percent(item.confidence)} sure` : null;
  return h(
    "li",
    {},
    h(
      "button",
      { type: "button", class: `row ${state}`, "data-signal": item.signal, onclick: () => onOpen(item) },
      badge(item),
      h(
        "span",
        { class: "row-head" },
        h("b", {}, item.symbol),
        h("span", { class: `side ${item.side}` }, item.side),
        h("span", { class: "quiet" }, listed([item.strategy, item.timeframe, state === "waiting" && "waits"])),
      ),
      h(
        "time",
        {
          class: "quiet",
          datetime: item.finished_at ?? item.close_time,
          title: `of the bar that closed at ${item.close_time}`,
        },
        moment(item.at, timeframeMs(item.timeframe) < 60000, now),
      ),
      h("span", { class: "row-text", dir: "auto" }, reasonOf(item)),
      h(
        "span",
        { class: "row-foot quiet" },
        listed([
          item.action,
          item.decision,
          sure,
          item.price === null ? null : price(item.price),
          item.model && `${item.model}${item.fallback ? " (fallback)" : ""}`,
          item.cost_usd ? usd(item.cost_usd) : null,
        ]),
      ),
    ),
  );
}
