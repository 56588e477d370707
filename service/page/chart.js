// Candles on a canvas: only what is in view is drawn, and a move of the view once a frame.

import { AXIS_HEIGHT, drawCrosshair, drawGrid, drawNewest } from "./chart_axes.js";
import { ChartInput } from "./chart_input.js";
import { drawMarks, placeMarks } from "./chart_marks.js";
import { price } from "./format.js";
import { indexOfTime } from "./market.js";

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
  /**
   * `onOpen(signal)` when a signal is chosen, `onCursor(bar, marks, byKey)` when the cursor moves (bar null when it
   * leaves), `onEdge()` when the view comes to the oldest bar there is.
   */
  constructor(canvas, { onOpen, onCursor, onEdge }) {
    this.canvas = canvas;
    this.pen = canvas.getContext("2d");
    this.onOpen = onOpen;
    this.onCursor = onCursor;
    this.onEdge = onEdge;
    this.bars = [];
    this.marks = [];
    this.boxes = [];
    this.stepMs = 60000;
    this.span = 120;
    this.right = 0;
    this.rightTime = 0;
    this.cursorTime = 0;
    this.follows = true;
    this.cursor = null;
    this.pointerY = null;
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

  /**
   * Draw these bars and signals now, both oldest first. The view stays at its time, whatever was added or dropped before it.
   */
  show(bars, marks) {
    this.bars = bars;
    this.marks = marks;
    this.right = this.follows ? bars.length : Math.min(bars.length, indexOfTime(bars, this.rightTime) + 1);
    if (this.cursor !== null) {
      this.cursor = bars.length ? Math.min(bars.length - 1, indexOfTime(bars, this.cursorTime)) : null;
    }
    this.draw();
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
    this.rightTime = this.bars[Math.max(0, Math.round(this.right) - 1)]?.t ?? 0;
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
    this.cursorTime = this.bars[this.cursor].t;
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

  /** The index of the bar at whose close a signal came, or within which; -1 where there is none. */
  indexOf(mark) {
    const index = indexOfTime(this.bars, mark.t) - 1;
    return index >= 0 && mark.t - this.bars[index].t <= this.stepMs ? index : -1;
  }

  marksAt(index) {
    return this.marks.filter((mark) => this.indexOf(mark) === index);
  }

  draw() {
    const { pen, width, height } = this;
    if (!width || !height) return;
    pen.clearRect(0, 0, width, height);
    this.boxes = [];
    if (!this.bars.length) return;
    if (this.right <= this.span) this.onEdge();
    const first = Math.max(0, Math.floor(this.right - this.span) - 1);
    const last = Math.min(this.bars.length, Math.ceil(this.right) + 1);
    this.boxes = placeMarks(this, first, last);
    drawGrid(this, first, last);
    pen.save();
    pen.beginPath();
    pen.rect(0, 0, this.plotWidth(), height - AXIS_HEIGHT);
    pen.clip();
    this.#volume(first, last);
    this.#candles(first, last);
    drawMarks(this, this.boxes);
    pen.restore();
    drawNewest(this);
    if (this.cursor !== null) drawCrosshair(this);
  }

  /** Let these bars fill the height, but for `above` and `below` px that signals need. */
  scale(first, last, { above, below }) {
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
    this.mostVolume = volume;
    this.plotHeight = this.height - AXIS_HEIGHT;
    const aPixel = (room * 1.26) / Math.max(1, this.plotHeight - above - below);
    this.low = low - room * 0.16 - below * aPixel;
    this.high = high + room * 0.1 + above * aPixel;
  }

  yOf(value) {
    return ((this.high - value) / (this.high - this.low)) * this.plotHeight;
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
}
