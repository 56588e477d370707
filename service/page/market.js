// What is known of bars and signals, merged from answers and events in any order: each bar and signal is there once.

// Of each line.
export const MOST_BARS = 20000;
export const MOST_SIGNALS = 4000;
const FINAL = new Set(["completed", "failed", "expired", "skipped"]);

export const isFinal = (item) => FINAL.has(item.status);

export const keyOf = (item) => `${item.source}\u001f${item.symbol}\u001f${item.timeframe}`;

/**
 * One line of bars, oldest first; `loaded` once the past has been asked for, `earlier` the cursor of what lies before it
 * (null: nothing; undefined: not known yet). A bar is {t, o, h, l, c, v}, t in ms.
 */
export class Series {
  constructor({ source, symbol, timeframe }) {
    Object.assign(this, {
      source,
      symbol,
      timeframe,
      bars: [],
      loaded: false,
      earlier: undefined,
      loading: null,
      error: null,
      failedAt: 0,
    });
    this.key = keyOf(this);
  }

  /** Put one bar in its place; a bar of the same time is replaced. */
  put(bar) {
    const { bars } = this;
    const newest = bars.at(-1);
    if (!newest || bar.t > newest.t) {
      bars.push(bar);
      if (bars.length > MOST_BARS) bars.splice(0, bars.length - MOST_BARS);
      return;
    }
    const at = indexOfTime(bars, bar.t);
    if (bars[at]?.t === bar.t) bars[at] = bar;
    else bars.splice(at, 0, bar);
  }
}

/** The index of the first bar that opens at `t` ms or later. */
export function indexOfTime(bars, t) {
  let low = 0;
  let high = bars.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (bars[middle].t < t) low = middle + 1;
    else high = middle;
  }
  return low;
}

export const barOf = (item) => ({
  t: Date.parse(item.open_time),
  o: Number(item.open),
  h: Number(item.high),
  l: Number(item.low),
  c: Number(item.close),
  v: item.volume === null || item.volume === undefined ? null : Number(item.volume),
});

/**
 * Whether `item` is later than what was known. An answer is, where what was known had come before it was asked for. Else a
 * final result is taken back only by an event that says it is rated again, and that by no answer.
 */
function follows(before, item, asked) {
  if (asked !== null && asked > before.heardAt) return true;
  if (isFinal(before) && !isFinal(item)) return Boolean(item.again);
  return asked === null || !before.again;
}

export class Market {
  constructor() {
    this.series = new Map();
    this.signals = new Map();
    this.ofLine = new Map();
  }

  line(item) {
    const key = keyOf(item);
    if (!this.series.has(key)) this.series.set(key, new Series(item));
    return this.series.get(key);
  }

  /**
   * A signal or verdict, told by an event or found by a question `asked` then (of performance.now()); false where nothing
   * new is in it, or something older.
   */
  put(item, asked = null) {
    const before = this.signals.get(item.signal);
    if (before && before.status === item.status && before.finished_at === item.finished_at) return false;
    if (before && !follows(before, item, asked)) return false;
    item.heardAt = performance.now();
    item.t = Date.parse(item.close_time);
    item.at = Date.parse(item.finished_at ?? item.close_time);
    item.again = !isFinal(item) && Boolean(item.again || before?.again);
    item.place = item.again && before ? before.place : item.at;
    item.key = keyOf(item);
    this.signals.set(item.signal, item);
    const line = this.ofLine.get(item.key) ?? new Map();
    this.ofLine.set(item.key, line.set(item.signal, item));
    if (line.size > MOST_SIGNALS * 1.2) this.#forgetOldest(line);
    return true;
  }

  #forgetOldest(line) {
    const oldestFirst = [...line.values()].sort((a, b) => a.t - b.t);
    for (const { signal } of oldestFirst.slice(0, line.size - MOST_SIGNALS)) {
      line.delete(signal);
      this.signals.delete(signal);
    }
  }

  /** Signals of one line, oldest first. */
  of(key) {
    return [...(this.ofLine.get(key)?.values() ?? [])].sort((a, b) => a.t - b.t);
  }

  /** The newest first: by when they became final; those that wait by their bar, or where they were before a retry. */
  newest(keep) {
    return [...this.signals.values()].filter(keep).sort((a, b) => b.place - a.place || (a.signal < b.signal ? -1 : 1));
  }
}
