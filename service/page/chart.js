// Candles on a canvas: drawn at most once a frame, whatever comes in, and only what is in view.

import { clock, day, price } from "./format.js";
import { ChartInput } from "./chart_input.js";
import { drawMarks, layMarks } from "./chart_marks.js";
import { priceTicks, timeStep } from "./ticks.js";

const AXIS_HEIGHT = 24;
const FEWEST = 12;
const COLOURS = [
  "ink",
  "quiet",
  "line",
  "ground",
  "candle",
  "accent",
  "r1",
  "r2",
  "r3",
  "r4",
  "r5",
  "r1-ink",
  "r2-ink",
  "r3-ink",
  "r4-ink",
  "r5-ink",
];

export class Chart {
  /** `onOpen(signal)` when a signal is chosen, `onCursor(bar, marks, byKey)` when the cursor moves; bar null when it leaves. */
  constructor(canvas, { onOpen, onCursor }) {
    this.canvas = canvas;
    this.pen = canvas.getContext("2d");
    this.onOpen = onOpen;
    this.onCursor = onCursor;
    this.bars = [];
    this.marks = [];
    this.boxes = [];
    this.stepMs = 60000;
    this.span = 120;
    this.right = 0;
    this.follows = true;
    this.cursor = null;
    this.pointerY = null;
    this.frames = 0;
    this.wanted = false;
    this.input = new ChartInput(this);
    new ResizeObserver(() => this.resize()).observe(canvas);
    this.restyle();
  }

  /** Another line of bars: the view goes to its newest ones. */
  open(stepMs) {
    this.stepMs = stepMs;
    this.follows = true;
    this.cursor = null;
    this.span = Math.max(40, Math.min(160, Math.round(this.plotWidth() / 8)));
    this.onCursor(null, [], false);
  }

  /** The bars and signals to show, both oldest first. Arrays may be the same as before, with more in them. */
  show(bars, marks) {
    this.bars = bars;
    this.marks = marks;
    if (this.follows) this.right = bars.length;
    this.right = Math.min(this.right, bars.length);
    if (this.cursor !== null && this.cursor >= bars.length) this.cursor = bars.length - 1;
    this.ask();
  }

  /** Draw in the next frame. */
  ask() {
    if (this.wanted) return;
    this.wanted = true;
    requestAnimationFrame(() => {
      this.wanted = false;
      this.draw();
    });
  }

  resize() {
    const { width, height } = this.canvas.getBoundingClientRect();
    const scale = devicePixelRatio || 1;
    this.width = width;
    this.height = height;
    this.canvas.width = Math.round(width * scale);
    this.canvas.height = Math.round(height * scale);
    this.pen.setTransform(scale, 0, 0, scale, 0, 0);
    this.draw();
  }

  /** Take the colours and the font of the style sheet again. */
  restyle() {
    const style = getComputedStyle(this.canvas);
    this.colours = Object.fromEntries(COLOURS.map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
    this.font = style.fontFamily;
    this.ask();
  }

  plotWidth() {
    return Math.max(50, (this.width ?? 800) - this.axisWidth());
  }

  axisWidth() {
    const newest = this.bars.at(-1);
    return newest ? 18 + 6.6 * price(newest.c).length : 60;
  }

  step() {
    return this.plotWidth() / (this.span + this.margin());
  }

  /** Room to the right of the newest bar, in bars. */
  margin() {
    return Math.max(1.5, this.span * 0.02);
  }

  xOf(index) {
    return (index - (this.right - this.span) + 0.5) * this.step();
  }

  indexAt(x) {
    return Math.round(x / this.step() - 0.5 + (this.right - this.span));
  }

  pan(bars) {
    this.right = Math.min(this.bars.length, Math.max(Math.min(this.span * 0.5, this.bars.length), this.right + bars));
    this.follows = this.right >= this.bars.length - 0.01;
    this.ask();
  }

  /** Show `factor` times as many bars, with the bar under `x` staying there; the newest bar where it is in view. */
  zoom(factor, x = null) {
    const span = Math.min(Math.max(this.bars.length, FEWEST), Math.max(FEWEST, this.span * factor));
    if (x !== null && !this.follows) {
      const part = x / this.plotWidth();
      this.right += (1 - part) * (span - this.span);
    }
    this.span = span;
    this.pan(0);
  }

  showAll() {
    this.span = Math.max(FEWEST, this.bars.length);
    this.showNow();
  }

  showNow() {
    this.follows = true;
    this.right = this.bars.length;
    this.ask();
  }

  /** Put the cursor on a bar, and bring it into view. */
  moveCursor(index, byKey = true) {
    if (!this.bars.length) return;
    this.cursor = Math.max(0, Math.min(this.bars.length - 1, index));
    if (byKey) {
      if (this.cursor >= this.right) this.pan(this.cursor + 1 - this.right);
      const left = this.right - this.span;
      if (this.cursor < left) this.pan(this.cursor - left);
    }
    this.onCursor(this.bars[this.cursor], this.marksAt(this.cursor), byKey);
    this.ask();
  }

  clearCursor() {
    if (this.cursor === null) return;
    this.cursor = null;
    this.pointerY = null;
    this.onCursor(null, [], false);
    this.ask();
  }

  /** The index of the bar at whose close a signal came. */
  indexOf(mark) {
    const open = mark.t - this.stepMs;
    let low = 0;
    let high = this.bars.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.bars[middle].t < open) low = middle + 1;
      else high = middle;
    }
    return this.bars[low]?.t === open ? low : -1;
  }

  marksAt(index) {
    return this.marks.filter((mark) => this.indexOf(mark) === index);
  }

  draw() {
    this.frames++;
    const { pen, width, height } = this;
    if (!width || !height) return;
    pen.clearRect(0, 0, width, height);
    this.boxes = [];
    if (!this.bars.length) return;
    const first = Math.max(0, Math.floor(this.right - this.span) - 1);
    const last = Math.min(this.bars.length, Math.ceil(this.right) + 1);
    this.#scale(first, last);
    this.#grid(first, last);
    pen.save();
    pen.beginPath();
    pen.rect(0, 0, this.plotWidth(), height - AXIS_HEIGHT);
    pen.clip();
    this.#volume(first, last);
    this.#candles(first, last);
    this.boxes = layMarks(this, first, last);
    drawMarks(this, this.boxes);
    pen.restore();
    this.#newest();
    if (this.cursor !== null) this.#crosshair();
  }

  #scale(first, last) {
    let low = Infinity;
    let high = -Infinity;
    let volume = 0;
    for (let i = first; i < last; i++) {
      const bar = this.bars[i];
      if (bar.l < low) low = bar.l;
      if (bar.h > high) high = bar.h;
      if (bar.v > volume) volume = bar.v;
    }
    const room = high - low || Math.abs(high) * 0.01 || 1;
    this.low = low - room * 0.16;
    this.high = high + room * 0.1;
    this.mostVolume = volume;
    this.plotHeight = this.height - AXIS_HEIGHT;
  }

  yOf(value) {
    return ((this.high - value) / (this.high - this.low)) * this.plotHeight;
  }

  #grid(first, last) {
    const { pen, colours } = this;
    const { ticks, decimals } = priceTicks(this.low, this.high, this.plotHeight / 56);
    this.decimals = decimals;
    pen.font = `11px ${this.font}`;
    pen.textBaseline = "middle";
    pen.textAlign = "left";
    pen.lineWidth = 1;
    pen.strokeStyle = colours.line;
    pen.fillStyle = colours.quiet;
    const right = this.plotWidth();
    const newestY = this.yOf(this.bars.at(-1).c);
    pen.beginPath();
    for (const tick of ticks) {
      const y = Math.round(this.yOf(tick)) + 0.5;
      pen.moveTo(0, y);
      pen.lineTo(right, y);
      if (y > 8 && y < this.plotHeight - 4 && Math.abs(y - newestY) > 16)
        pen.fillText(price(tick, decimals), right + 8, y);
    }
    const step = timeStep(this.span * this.stepMs, right / 84);
    pen.textAlign = "center";
    for (let i = Math.max(1, first); i < last; i++) {
      const { t } = this.bars[i];
      if (Math.floor(t / step) === Math.floor(this.bars[i - 1].t / step)) continue;
      const x = Math.round(this.xOf(i)) + 0.5;
      pen.moveTo(x, 0);
      pen.lineTo(x, this.plotHeight);
      if (x < 18 || x > right - 18) continue;
      const midnight = t % 86400000 === 0 || step >= 86400000;
      pen.fillStyle = midnight ? colours.ink : colours.quiet;
      pen.fillText(midnight ? day(t).slice(5) : clock(t, step < 60000), x, this.plotHeight + AXIS_HEIGHT / 2 + 1);
      pen.fillStyle = colours.quiet;
    }
    pen.stroke();
  }

  #volume(first, last) {
    if (!this.mostVolume) return;
    const { pen } = this;
    const width = Math.max(1, this.step() * 0.62);
    pen.globalAlpha = 0.16;
    pen.fillStyle = this.colours.candle;
    for (let i = first; i < last; i++) {
      const height = (this.bars[i].v / this.mostVolume) * this.plotHeight * 0.11;
      pen.fillRect(this.xOf(i) - width / 2, this.plotHeight - height, width, height);
    }
    pen.globalAlpha = 1;
  }

  #candles(first, last) {
    const { pen, colours } = this;
    const step = this.step();
    const body = step < 2.5 ? 0 : Math.max(1, Math.round(step * 0.64));
    pen.strokeStyle = colours.candle;
    pen.lineWidth = step < 1.2 ? Math.max(0.6, step) : 1;
    pen.beginPath();
    for (let i = first; i < last; i++) {
      const bar = this.bars[i];
      const x = Math.round(this.xOf(i)) + 0.5;
      pen.moveTo(x, this.yOf(bar.h));
      pen.lineTo(x, this.yOf(bar.l));
    }
    pen.stroke();
    if (!body) return;
    for (let i = first; i < last; i++) {
      const bar = this.bars[i];
      const left = Math.round(this.xOf(i)) + 0.5 - body / 2;
      const top = Math.round(this.yOf(Math.max(bar.o, bar.c)));
      const height = Math.max(1, Math.round(this.yOf(Math.min(bar.o, bar.c))) - top);
      const up = bar.c >= bar.o;
      pen.fillStyle = up ? colours.ground : colours.candle;
      pen.fillRect(left, top, body, height);
      if (up && body > 2) pen.strokeRect(left + 0.5, top + 0.5, body - 1, Math.max(0, height - 1));
      else if (up) {
        pen.fillStyle = colours.candle;
        pen.globalAlpha = 0.45;
        pen.fillRect(left, top, body, height);
        pen.globalAlpha = 1;
      }
    }
  }

  #newest() {
    const { pen, colours } = this;
    const bar = this.bars.at(-1);
    const y = Math.min(this.plotHeight - 9, Math.max(9, Math.round(this.yOf(bar.c)) + 0.5));
    pen.setLineDash([2, 3]);
    pen.strokeStyle = colours.quiet;
    pen.beginPath();
    pen.moveTo(this.follows ? this.xOf(this.bars.length - 1) : 0, y);
    pen.lineTo(this.plotWidth(), y);
    pen.stroke();
    pen.setLineDash([]);
    this.#label(this.plotWidth() + 2, y, price(bar.c), colours.ink, colours.ground, "left");
  }

  #label(x, y, text, back, ink, align) {
    const { pen } = this;
    pen.font = `600 11px ${this.font}`;
    const width = pen.measureText(text).width + 12;
    const left = align === "left" ? x : Math.min(this.plotWidth() - width, Math.max(0, x - width / 2));
    pen.fillStyle = back;
    pen.beginPath();
    pen.roundRect(left, y - 9, width, 18, 3);
    pen.fill();
    pen.fillStyle = ink;
    pen.textAlign = "left";
    pen.textBaseline = "middle";
    pen.fillText(text, left + 6, y + 0.5);
  }

  #crosshair() {
    const { pen, colours } = this;
    const bar = this.bars[this.cursor];
    const x = Math.round(this.xOf(this.cursor)) + 0.5;
    if (x < 0 || x > this.plotWidth()) return;
    const y = this.pointerY ?? this.yOf(bar.c);
    pen.strokeStyle = colours.quiet;
    pen.lineWidth = 1;
    pen.setLineDash([3, 3]);
    pen.beginPath();
    pen.moveTo(x, 0);
    pen.lineTo(x, this.plotHeight);
    if (y < this.plotHeight) {
      pen.moveTo(0, Math.round(y) + 0.5);
      pen.lineTo(this.plotWidth(), Math.round(y) + 0.5);
    }
    pen.stroke();
    pen.setLineDash([]);
    this.#label(
      x,
      this.plotHeight + AXIS_HEIGHT / 2,
      `${day(bar.t).slice(5)} ${clock(bar.t, this.stepMs < 60000)}`,
      colours.ink,
      colours.ground,
      "center",
    );
    if (y < this.plotHeight) {
      const value = this.high - (y / this.plotHeight) * (this.high - this.low);
      this.#label(this.plotWidth() + 2, y, price(value, this.decimals + 1), colours.quiet, colours.ground, "left");
    }
  }
}
