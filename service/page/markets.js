// The list of markets: symbol, newest price, its change over what is loaded, and a line of it.

import { $, fill, h, note, setText } from "./dom.js";
import { price, signed } from "./format.js";

const SPARK = 60;
const SPARK_WIDTH = 56;
const SPARK_HEIGHT = 18;

export class Markets {
  /** `onChoose(line)` when one is chosen, `onSee(lines)` when lines come into view. */
  constructor(onChoose, onSee) {
    this.onChoose = onChoose;
    this.rows = new Map();
    this.list = $("market-list");
    this.seeing = new IntersectionObserver((seen) => {
      const keys = seen.filter((one) => one.isIntersecting).map((one) => one.target.dataset.line);
      onSee(keys.map((key) => this.rows.get(key)?.line).filter(Boolean));
    });
  }

  /** One row per line of bars, in the order of their names. */
  set(lines, error = null) {
    this.lines = [...lines].sort(
      (a, b) => a.symbol.localeCompare(b.symbol, "en") || a.timeframe.localeCompare(b.timeframe),
    );
    this.rows.clear();
    this.seeing.disconnect();
    const frames = new Set(this.lines.map((line) => line.timeframe));
    fill(
      this.list,
      this.lines.map((line) => this.#row(line, frames.size > 1)),
    );
    if (!this.lines.length)
      fill(
        this.list,
        h("li", { class: "note" }, note(error ? "The markets could not be read" : "No markets yet", error ?? "")),
      );
  }

  #row(line, withFrame) {
    const last = h("span", { class: "market-last" });
    const change = h("span", { class: "market-change quiet" });
    const spark = h("canvas", {
      class: "spark",
      "aria-hidden": true,
      width: SPARK_WIDTH * 2,
      height: SPARK_HEIGHT * 2,
    });
    const button = h(
      "button",
      { type: "button", onclick: () => this.onChoose(line) },
      h("b", {}, line.symbol, withFrame ? h("span", { class: "quiet" }, ` ${line.timeframe}`) : null),
      last,
      spark,
      change,
    );
    this.rows.set(line.key, { line, button, last, change, spark });
    const place = h("li", { "data-line": line.key }, button);
    this.seeing.observe(place);
    return place;
  }

  choose(key) {
    for (const [one, { button }] of this.rows) {
      if (one !== key) {
        button.removeAttribute("aria-current");
        continue;
      }
      button.setAttribute("aria-current", "true");
      const box = this.list.getBoundingClientRect();
      const place = button.getBoundingClientRect();
      if (place.left < box.left || place.right > box.right) this.list.scrollLeft += place.left - box.left - 12;
      if (place.top < box.top || place.bottom > box.bottom) this.list.scrollTop += place.top - box.top - 12;
    }
  }

  /** The line `by` places further in the list. */
  neighbour(key, by) {
    const at = this.lines?.findIndex((line) => line.key === key) ?? -1;
    return at < 0 ? null : this.lines[(at + by + this.lines.length) % this.lines.length];
  }

  draw(keys, colours) {
    for (const key of keys) {
      const row = this.rows.get(key);
      if (!row) continue;
      const newest = row.line.bars.at(-1);
      const first = row.line.bars[0];
      setText(row.last, newest ? price(newest.c) : "");
      setText(row.change, newest && first.o ? signed(newest.c / first.o - 1) : "");
      drawSpark(row.spark, row.line.bars, colours);
    }
  }
}

function drawSpark(canvas, bars, colours) {
  const pen = canvas.getContext("2d");
  const { width, height } = canvas;
  pen.clearRect(0, 0, width, height);
  const every = Math.max(1, Math.floor(bars.length / SPARK));
  const closes = [];
  for (let i = (bars.length - 1) % every; i < bars.length; i += every) closes.push(bars[i].c);
  if (closes.length < 2) return;
  const low = Math.min(...closes);
  const high = Math.max(...closes);
  pen.lineWidth = 2.5;
  pen.lineJoin = "round";
  pen.strokeStyle = colours.candle;
  pen.beginPath();
  closes.forEach((close, i) => {
    pen.lineTo(
      (i / (closes.length - 1)) * (width - 4) + 2,
      height - 3 - ((close - low) / (high - low || 1)) * (height - 6),
    );
  });
  pen.stroke();
}
