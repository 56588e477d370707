// What stands around the candles: grid, scales, the newest price, the cursor.

import { clock, day, price } from "./format.js";
import { priceTicks, timeStep } from "./ticks.js";

export const AXIS_HEIGHT = 24;
const A_DAY_MS = 86400000;

/** Lines and labels of both axes. */
export function drawGrid(chart, first, last) {
  const { pen, colours } = chart;
  const { ticks, decimals } = priceTicks(chart.low, chart.high, chart.plotHeight / 56);
  chart.decimals = decimals;
  pen.font = `11px ${chart.font}`;
  pen.textBaseline = "middle";
  pen.textAlign = "left";
  pen.lineWidth = 1;
  pen.strokeStyle = colours.line;
  pen.fillStyle = colours.quiet;
  const right = chart.plotWidth();
  const newestY = chart.yOf(chart.bars.at(-1).c);
  pen.beginPath();
  for (const tick of ticks) {
    const y = Math.round(chart.yOf(tick)) + 0.5;
    pen.moveTo(0, y);
    pen.lineTo(right, y);
    if (y > 8 && y < chart.plotHeight - 4 && Math.abs(y - newestY) > 16)
      pen.fillText(price(tick, decimals), right + 8, y);
  }
  const step = timeStep(chart.span * chart.stepMs, right / 84);
  pen.textAlign = "center";
  for (let i = Math.max(1, first); i < last; i++) {
    const { t } = chart.bars[i];
    if (Math.floor(t / step) === Math.floor(chart.bars[i - 1].t / step)) continue;
    const x = Math.round(chart.xOf(i)) + 0.5;
    pen.moveTo(x, 0);
    pen.lineTo(x, chart.plotHeight);
    if (x < 18 || x > right - 18) continue;
    const midnight = t % A_DAY_MS === 0 || step >= A_DAY_MS;
    pen.fillStyle = midnight ? colours.ink : colours.quiet;
    pen.fillText(midnight ? day(t).slice(5) : clock(t, step < 60000), x, chart.plotHeight + AXIS_HEIGHT / 2 + 1);
    pen.fillStyle = colours.quiet;
  }
  pen.stroke();
}

/** The newest close, as a line and a label on the price axis. */
export function drawNewest(chart) {
  const { pen, colours } = chart;
  const bar = chart.bars.at(-1);
  const y = Math.min(chart.plotHeight - 9, Math.max(9, Math.round(chart.yOf(bar.c)) + 0.5));
  pen.setLineDash([2, 3]);
  pen.strokeStyle = colours.quiet;
  pen.beginPath();
  pen.moveTo(chart.follows ? chart.xOf(chart.bars.length - 1) : 0, y);
  pen.lineTo(chart.plotWidth(), y);
  pen.stroke();
  pen.setLineDash([]);
  label(chart, chart.plotWidth() + 2, y, price(bar.c), colours.ink, colours.ground, "left");
}

function label(chart, x, y, text, back, ink, align) {
  const { pen } = chart;
  pen.font = `600 11px ${chart.font}`;
  const width = pen.measureText(text).width + 12;
  const left = align === "left" ? x : Math.min(chart.plotWidth() - width, Math.max(0, x - width / 2));
  pen.fillStyle = back;
  pen.beginPath();
  pen.roundRect(left, y - 9, width, 18, 3);
  pen.fill();
  pen.fillStyle = ink;
  pen.textAlign = "left";
  pen.textBaseline = "middle";
  pen.fillText(text, left + 6, y + 0.5);
}

/** The lines through the cursor, with its time and price. */
export function drawCrosshair(chart) {
  const { pen, colours } = chart;
  const bar = chart.bars[chart.cursor];
  const x = Math.round(chart.xOf(chart.cursor)) + 0.5;
  if (x < 0 || x > chart.plotWidth()) return;
  const y = chart.pointerY ?? chart.yOf(bar.c);
  pen.strokeStyle = colours.quiet;
  pen.lineWidth = 1;
  pen.setLineDash([3, 3]);
  pen.beginPath();
  pen.moveTo(x, 0);
  pen.lineTo(x, chart.plotHeight);
  if (y < chart.plotHeight) {
    pen.moveTo(0, Math.round(y) + 0.5);
    pen.lineTo(chart.plotWidth(), Math.round(y) + 0.5);
  }
  pen.stroke();
  pen.setLineDash([]);
  label(
    chart,
    x,
    chart.plotHeight + AXIS_HEIGHT / 2,
    `${day(bar.t).slice(5)} ${clock(bar.t, chart.stepMs < 60000)}`,
    colours.ink,
    colours.ground,
    "center",
  );
  if (y < chart.plotHeight) {
    const value = chart.high - (y / chart.plotHeight) * (chart.high - chart.low);
    label(chart, chart.plotWidth() + 2, y, price(value, chart.decimals + 1), colours.quiet, colours.ground, "left");
  }
}
