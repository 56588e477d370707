// Signals on the candles: the rating by colour and number, the side by the shape of the outline.

import { SIGNS, stateOf } from "./dom.js";

const SMALL = 8;
const LARGE = 17;
const GAP = 3;
const MOST_STEPS = 6;
const NEIGHBOURS = 12;
const TURNS = 3;
const MOST_ROOM = 0.25;

/**
 * Scale the chart so that its signals have room above and below the candles, and say where each in view is drawn:
 * {mark, index, x, y, size}. At most a quarter of the height is given away on either side; what has no room even so lies
 * at the edge.
 */
export function placeMarks(chart, first, last) {
  const room = { above: 0, below: 0 };
  let boxes = [];
  for (let turn = 0; turn < TURNS; turn++) {
    chart.scale(first, last, room);
    boxes = layMarks(chart, first, last);
    const most = chart.plotHeight * MOST_ROOM;
    const above = Math.min(most, room.above + Math.max(0, ...boxes.map((box) => box.size / 2 + 2 - box.y)));
    const below = Math.min(
      most,
      room.below + Math.max(0, ...boxes.map((box) => box.y + box.size / 2 + 2 - chart.plotHeight)),
    );
    if (above <= room.above && below <= room.below) break;
    Object.assign(room, { above, below });
  }
  for (const box of boxes) box.y = Math.max(box.size / 2, Math.min(chart.plotHeight - box.size / 2, box.y));
  return boxes;
}

/** Long ones lie under the candles, others above them; one that would cover another goes further out. */
function layMarks(chart, first, last) {
  const size = markSize(chart);
  const above = [];
  const below = [];
  for (const mark of chart.marks) {
    const index = chart.indexOf(mark);
    if (index < first || index >= last) continue;
    const isBelow = mark.side === "long";
    const placed = isBelow ? below : above;
    const out = isBelow ? 1 : -1;
    const x = chart.xOf(index);
    let y = edgeOf(chart, index, size, isBelow) + out * (GAP + size / 2);
    for (let step = 0; step < MOST_STEPS; step++) {
      const other = placed.slice(-NEIGHBOURS).find((one) => Math.abs(one.x - x) < size && Math.abs(one.y - y) < size);
      if (!other) break;
      y = other.y + out * (size + GAP - 1);
    }
    placed.push({ mark, index, size, x, y });
  }
  return [...above, ...below];
}

/** The lowest (or highest) point of the candles that a mark at this bar would lie over. */
function edgeOf(chart, index, size, isBelow) {
  const reach = Math.floor((size / 2 + 1) / chart.step());
  const bars = chart.bars.slice(Math.max(0, index - reach), index + reach + 1);
  return isBelow ? chart.yOf(Math.min(...bars.map((bar) => bar.l))) : chart.yOf(Math.max(...bars.map((bar) => bar.h)));
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
    pen.fillText(rated ? mark.rating : SIGNS[stateOf(mark)], x, y + shift + 0.5);
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
