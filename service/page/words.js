// Sentences for a screen reader.

import { ratingInWords } from "./feed.js";
import { clock, day, price } from "./format.js";

/** A bar and the signals at its close, in one sentence. */
export function barInWords(bar, marks) {
  const signals = marks.map((mark) => `${mark.side} signal, ${ratingInWords(mark)}`).join("; ");
  return `${day(bar.t)} ${clock(bar.t)}, open ${price(bar.o)}, high ${price(bar.h)}, low ${price(bar.l)}, close ${price(bar.c)}${signals ? `. ${signals}` : ""}`;
}
