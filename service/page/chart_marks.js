// Signals on the candles: the rating by colour and number, the side by the shape of the outline.

import { stateOf } from "./dom.js";

const SMALL = 8;
const LARGE = 17;
const GAP = 3;

/** Where each signal in view is drawn: {mark, x, y, size}. Those of one bar are stacked away from it. */
export function layMarks(chart, first, last) {
  const size = markSize(chart);
  const stacked = new Map();
  const boxes = [];
  for (const mark of chart.marks) {
    const index = chart.indexOf(mark);
    if (index < first || index >= last) continue;
    const bar = chart.bars[index];
    const below = mark.side === "long";
    const slot = index * 2 + Number(below);
    const already = stacked.get(slot) ?? 0;
    stacked.set(slot, already + 1);
    const away = GAP + size / 2 + already * (size + GAP);
    const y = below ? chart.yOf(bar.l) + away : chart.yOf(bar.h) - away;
    const most = chart.plotHeight - size / 2;
    boxes.push({ mark, index, size, x: chart.xOf(index), y: Math.max(size / 2, Math.min(most, y)) });
  }
  return boxes;
}

function markSize(chart) {
  return chart.step() >= 4 ? LARGE : chart.step() >= 2 ? 13 : SMALL;
}

export function drawMarks(chart, boxes) {
  const { pen, colours } = chart;
  pen.lineJoin = "round";
  pen.textAlign = "center";
  pen.textBaseline = "middle";
  for (const box of boxes) {
    const { mark, x, y, size } = box;
    const rated = stateOf(mark) === "rated";
    outline(pen, mark.side, x, y, size);
    pen.lineWidth = size > SMALL ? 4 : 2;
    pen.strokeStyle = colours.ground;
    pen.stroke();
    pen.fillStyle = rated ? colours[`r${mark.rating}`] : colours.ground;
    pen.fill();
    pen.lineWidth = box.index === chart.cursor ? 2 : 1.2;
    if (size === SMALL && rated && box.index !== chart.cursor) continue;
    pen.strokeStyle = rated || box.index === chart.cursor ? colours.ink : colours.quiet;
    if (!rated) pen.setLineDash([2, 2]);
    pen.stroke();
    pen.setLineDash([]);
    if (size < 13) continue;
    pen.font = `700 ${size > 13 ? 11 : 9}px ${chart.font}`;
    pen.fillStyle = rated ? colours[`r${mark.rating}-ink`] : colours.quiet;
    const shift = mark.side === "long" ? size * 0.1 : mark.side === "short" ? -size * 0.1 : 0;
    pen.fillText(
      rated ? mark.rating : ({ waiting: "…", abstained: "–", unrated: "" }[stateOf(mark)] ?? "×"),
      x,
      y + shift + 0.5,
    );
  }
}

function outline(pen, side, x, y, size) {
  const half = size / 2;
  pen.beginPath();
  if (side !== "long" && side !== "short") {
    pen.arc(x, y, half - 0.5, 0, 2 * Math.PI);
    return;
  }
  const up = side === "long" ? 1 : -1;
  pen.moveTo(x, y - up * (half + 1));
  pen.lineTo(x + half, y - up * half * 0.3);
  pen.lineTo(x + half, y + up * half);
  pen.lineTo(x - half, y + up * half);
  pen.lineTo(x - half, y - up * half * 0.3);
  pen.closePath();
}

/** The signal under a point, with some room for fingers. */
export function markAt(boxes, x, y, room) {
  let nearest = null;
  let least = Infinity;
  for (const box of boxes) {
    const away = Math.hypot(box.x - x, box.y - y);
    if (away < box.size / 2 + room && away < least) {
      least = away;
      nearest = box.mark;
    }
  }
  return nearest;
}
