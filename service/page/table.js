// The chart as a table: for those who do not see it, and those who like figures better.

import { fill, h } from "./dom.js";
import { ratingInWords } from "./feed.js";
import { amount, clock, day, price } from "./format.js";

const MOST_ROWS = 200;
const COLUMNS = ["opened", "open", "high", "low", "close", "volume", "signals"];

export class Table {
  /** `onOpen(signal)` when a signal in it is chosen. */
  constructor(box, onOpen) {
    this.box = box;
    this.onOpen = onOpen;
    this.key = null;
  }

  /**
   * The newest bars first, each with its signals; rows that stay are left alone. `indexOf(signal)` gives its bar's place
   * in the line, or -1.
   */
  draw(line, marks, stepMs, indexOf) {
    if (line.key !== this.key) this.#begin(line);
    const signals = new Map();
    for (const mark of marks) {
      const opened = line.bars[indexOf(mark)]?.t;
      signals.set(opened, [...(signals.get(opened) ?? []), mark]);
    }
    const bars = line.bars.slice(-MOST_ROWS).reverse();
    const rows = new Map();
    let before = null;
    for (const bar of bars) {
      const of = signals.get(bar.t) ?? [];
      const kept = this.rows.get(bar.t);
      const same =
        kept && kept.bar === bar && kept.of.length === of.length && of.every((mark, at) => mark === kept.of[at]);
      const row = same ? kept : { bar, of, element: this.#row(bar, of, stepMs) };
      if (kept && !same) kept.element.replaceWith(row.element);
      const next = before ? before.nextSibling : this.body.firstChild;
      if (next !== row.element) this.body.insertBefore(row.element, next);
      rows.set(bar.t, row);
      before = row.element;
    }
    while (before?.nextSibling) before.nextSibling.remove();
    this.rows = rows;
  }

  #begin(line) {
    this.key = line.key;
    this.rows = new Map();
    this.body = h("tbody");
    const caption = `${line.symbol} ${line.timeframe}, the newest ${MOST_ROWS} bars at most, UTC`;
    const heads = COLUMNS.map((name) => h("th", { scope: "col" }, name));
    fill(
      this.box,
      h("table", {}, h("caption", { class: "unseen" }, caption), h("thead", {}, h("tr", {}, heads)), this.body),
    );
  }

  #row(bar, signals, stepMs) {
    const open = (mark) =>
      h(
        "button",
        { type: "button", class: "link-like", onclick: () => this.onOpen(mark) },
        `${mark.side}, ${ratingInWords(mark)}`,
      );
    return h(
      "tr",
      {},
      h("th", { scope: "row" }, `${day(bar.t).slice(5)} ${clock(bar.t, stepMs < 60000)}`),
      [bar.o, bar.h, bar.l, bar.c].map((value) => h("td", {}, price(value))),
      h("td", {}, amount(bar.v)),
      h(
        "td",
        {},
        signals.map((mark, at) => [at ? "; " : null, open(mark)]),
      ),
    );
  }
}
