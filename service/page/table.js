// The chart as a table: for those who do not see it, and those who like figures better.

import { fill, h } from "./dom.js";
import { ratingInWords } from "./feed.js";
import { clock, count, day, price } from "./format.js";

const MOST_ROWS = 200;

/** The newest bars first, each with the signals that came at its close. */
export function drawTable(box, line, marks, stepMs, onOpen) {
  const byOpen = new Map();
  for (const mark of marks) byOpen.set(mark.t - stepMs, [...(byOpen.get(mark.t - stepMs) ?? []), mark]);
  const bars = line.bars.slice(-MOST_ROWS).reverse();
  fill(
    box,
    h(
      "table",
      {},
      h("caption", { class: "unseen" }, `${line.symbol} ${line.timeframe}, the newest ${bars.length} bars, UTC`),
      h(
        "thead",
        {},
        h(
          "tr",
          {},
          ["opened", "open", "high", "low", "close", "volume", "signals"].map((name) =>
            h("th", { scope: "col" }, name),
          ),
        ),
      ),
      h(
        "tbody",
        {},
        bars.map((bar) =>
          h(
            "tr",
            {},
            h("th", { scope: "row" }, `${day(bar.t).slice(5)} ${clock(bar.t, stepMs < 60000)}`),
            [bar.o, bar.h, bar.l, bar.c].map((value) => h("td", {}, price(value))),
            h("td", {}, count(bar.v)),
            h(
              "td",
              {},
              (byOpen.get(bar.t) ?? []).map((mark) =>
                h(
                  "button",
                  { type: "button", class: "link-like", onclick: () => onOpen(mark) },
                  `${mark.side}, ${ratingInWords(mark)}`,
                ),
              ),
            ),
          ),
        ),
      ),
    ),
  );
}
