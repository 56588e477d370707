// Sentences for a screen reader.

import { ratingInWords } from "./feed.js";
import { clock, day, price } from "./format.js";

/** A bar and the signals at its close, in one sentence; `seconds` where bars are shorter than a minute. */
export function barInWords(bar, marks, seconds) {
  const signals = marks.map((mark) => `${mark.side} signal, ${ratingInWords(mark)}`).join("; ");
  return `${day(bar.t)} ${clock(bar.t, seconds)}, open ${price(bar.o)}, high ${price(bar.h)}, low ${price(bar.l)}, close ${price(bar.c)}${signals ? `. ${signals}` : ""}`;
}
