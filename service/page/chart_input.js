// Mouse, fingers and keys on the chart.

import { markAt } from "./chart_marks.js";

const A_CLICK_PX = 5;

export class ChartInput {
  constructor(chart) {
    this.chart = chart;
    this.fingers = new Map();
    const { canvas } = chart;
    canvas.addEventListener("pointerdown", (event) => this.#down(event));
    canvas.addEventListener("pointermove", (event) => this.#move(event));
    canvas.addEventListener("pointerup", (event) => this.#up(event));
    canvas.addEventListener("pointercancel", (event) => this.fingers.delete(event.pointerId));
    canvas.addEventListener("pointerleave", () => this.fingers.size || chart.clearCursor());
    canvas.addEventListener("dblclick", () => chart.showNow());
    canvas.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    canvas.addEventListener("keydown", (event) => this.#key(event));
    canvas.addEventListener("blur", () => chart.clearCursor());
  }

  #down(event) {
    this.fingers.set(event.pointerId, { x: event.offsetX, y: event.offsetY, from: event.offsetX });
    if (this.fingers.size === 1) this.dragged = false;
    this.chart.canvas.setPointerCapture?.(event.pointerId);
  }

  #move(event) {
    const { chart } = this;
    const finger = this.fingers.get(event.pointerId);
    const { offsetX: x, offsetY: y } = event;
    if (!finger) {
      this.#point(x, y);
      return;
    }
    if (Math.abs(x - finger.from) > A_CLICK_PX) this.dragged = true;
    const other = [...this.fingers.entries()].find(([id]) => id !== event.pointerId)?.[1];
    if (other) {
      this.dragged = true;
      const before = Math.max(10, Math.abs(finger.x - other.x));
      chart.zoom(before / Math.max(10, Math.abs(x - other.x)), (x + other.x) / 2);
    } else if (this.dragged) {
      chart.pan((finger.x - x) / chart.step());
    }
    finger.x = x;
    finger.y = y;
  }

  #up(event) {
    const finger = this.fingers.get(event.pointerId);
    this.fingers.delete(event.pointerId);
    if (!finger || this.dragged) return;
    const { chart } = this;
    const mark = markAt(chart.boxes, event.offsetX, event.offsetY, event.pointerType === "mouse" ? 3 : 12);
    if (mark) chart.onOpen(mark);
    else this.#point(event.offsetX, event.offsetY);
  }

  #point(x, y) {
    const { chart } = this;
    if (x > chart.plotWidth()) {
      chart.clearCursor();
      return;
    }
    chart.pointerY = y;
    chart.canvas.classList.toggle("on-mark", Boolean(markAt(chart.boxes, x, y, 3)));
    chart.moveCursor(chart.indexAt(x), false);
  }

  #wheel(event) {
    const page = document.scrollingElement;
    const pageScrolls = page.scrollHeight > page.clientHeight + 1;
    const sideways = Math.abs(event.deltaX) > Math.abs(event.deltaY);
    if (pageScrolls && !event.ctrlKey && !sideways) return;
    event.preventDefault();
    if (sideways) this.chart.pan(event.deltaX / this.chart.step());
    else this.chart.zoom(Math.exp(Math.max(-60, Math.min(60, event.deltaY)) * 0.004), event.offsetX);
  }

  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const { chart } = this;
    const at = chart.cursor ?? chart.bars.length;
    const stride = event.shiftKey ? 10 : 1;
    const acts = {
      ArrowLeft: () => this.#step(at - stride),
      ArrowRight: () => this.#step(at + stride),
      PageUp: () => this.#step(at - Math.round(chart.span)),
      PageDown: () => this.#step(at + Math.round(chart.span)),
      ",": () => this.#toMark(-1),
      ".": () => this.#toMark(1),
      Home: () => chart.showAll(),
      End: () => chart.showNow(),
      "+": () => chart.zoom(0.8),
      "=": () => chart.zoom(0.8),
      "-": () => chart.zoom(1.25),
      Enter: () => this.#open(),
      Escape: () => chart.clearCursor(),
    };
    if (!acts[event.key] || !chart.bars.length) return;
    event.preventDefault();
    event.stopPropagation();
    acts[event.key]();
  }

  #step(index) {
    this.chart.pointerY = null;
    this.chart.moveCursor(index);
  }

  #toMark(direction) {
    const { chart } = this;
    const indices = chart.marks.map((mark) => chart.indexOf(mark)).filter((index) => index >= 0);
    const at = chart.cursor ?? chart.bars.length;
    const index = direction < 0 ? indices.filter((one) => one < at).at(-1) : indices.find((one) => one > at);
    if (index !== undefined) this.#step(index);
  }

  #open() {
    const { chart } = this;
    const marks = chart.cursor === null ? [] : chart.marksAt(chart.cursor);
    if (marks.length) chart.onOpen(marks.at(-1));
  }
}
