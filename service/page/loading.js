// What is asked for: once at the start, again after a reset, and the figures from time to time.

import { Refused } from "./api.js";
import { barOf } from "./market.js";

const BARS = 1500;
const NEWEST = 200;
const SIGNALS = 500;
const PAGES = 3;
const AHEAD = 30;
const DAYS = 14;
const AGAIN_MS = 5000;
const DAY_MS = 86400000;

/** Whether nobody answered at all: the connection's own message says so already. */
export const unanswered = (error) => !(error instanceof Refused);

/** The reason of a failure, for a person. */
export const whyOf = (error) => (unanswered(error) ? "the daemon does not answer" : error.message);

export class Loading {
  /**
   * Fills `market` and tells `page`: `foundMarkets()`, `noMarkets(why)`, `foundSignals(why, from)` with what went wrong or
   * null and the time (ms) from which on all are known, `foundBars(line)`, `foundStats(stats)`, `foundCosts(costs)`,
   * `foundPause(pause)`, and `noFigures(ids, why)`.
   */
  constructor(api, market, page) {
    this.api = api;
    this.market = market;
    this.page = page;
    this.run = 0;
    this.older = null;
    this.looking = Promise.resolve();
  }

  /** Leave what is under way; its answers are not looked at. */
  stop() {
    this.run++;
  }

  /** Everything: the markets, their signals, the bars of the one that is shown, then those of the others. */
  async everything() {
    const run = ++this.run;
    this.figures();
    try {
      const { streams } = await this.api.get("streams");
      if (run !== this.run) return;
      for (const stream of streams) this.market.line(stream);
      this.page.foundMarkets();
    } catch (error) {
      if (run !== this.run) return;
      this.page.noMarkets(whyOf(error));
    }
    const shown = this.page.line;
    await Promise.all([this.#signals(run), shown && this.bars(shown, true)]);
    const others = [...this.market.series.values()].filter((line) => !line.loaded);
    for (const line of others.slice(0, AHEAD)) {
      if (run !== this.run) return;
      await this.bars(line);
    }
  }

  async #signals(run, cursor = null) {
    const asked = performance.now();
    let why = null;
    let from;
    try {
      const { signals, next_cursor: older } = await this.api.get("signals", { limit: NEWEST, cursor });
      if (run !== this.run) return;
      for (const item of signals) this.market.put(item, asked);
      this.older = older;
      from = older === null ? -Infinity : Date.parse(signals.at(-1).close_time);
    } catch (error) {
      why = whyOf(error);
    }
    if (run === this.run) this.page.foundSignals(why, from);
  }

  /** Older signals, a page at a time, as long as there are some and `more()` says so. */
  async olderSignals(more) {
    for (let page = 0; page < PAGES && this.older !== null && more(); page++) {
      const { run, older } = this;
      await this.#signals(run, older);
      if (older === this.older) return;
    }
  }

  /** Somebody sees these lines in the list: read what has not been read of them, one after the other. */
  see(lines) {
    const { run } = this;
    for (const line of lines) this.looking = this.looking.then(() => run === this.run && this.bars(line));
  }

  /** The past of one line and its signals: once, or `again`. */
  bars(line, again = false) {
    if (line.loading || (line.loaded && !again)) return line.loading;
    line.loading = this.#bars(line).finally(() => (line.loading = null));
    return line.loading;
  }

  async #bars(line) {
    const { source, symbol, timeframe } = line;
    try {
      const { bars, next_cursor: earlier } = await this.api.get("bars", { source, symbol, timeframe, limit: BARS });
      for (const item of bars) line.put(barOf(item));
      if (line.earlier === undefined) line.earlier = earlier;
      line.loaded = true;
      line.error = null;
      this.page.foundBars(line);
      if (bars.length) await this.#signalsOf(line, { since: bars[0].open_time });
    } catch (error) {
      line.error = whyOf(error);
    }
    this.page.foundBars(line);
  }

  /** The signals of a line within a time, the newest PAGES pages of them. */
  async #signalsOf({ symbol, timeframe }, between) {
    let cursor = null;
    for (let page = 0; page < PAGES; page++) {
      const asked = performance.now();
      const { signals, next_cursor } = await this.api.get("signals", {
        symbol,
        timeframe,
        ...between,
        limit: SIGNALS,
        cursor,
      });
      for (const item of signals) this.market.put(item, asked);
      cursor = next_cursor;
      if (cursor === null) return;
    }
  }

  /** What lies before the bars of a line, with its signals. */
  earlier(line) {
    if (line.loading || !line.earlier || Date.now() - line.failedAt < AGAIN_MS) return line.loading;
    line.loading = this.#earlier(line).finally(() => (line.loading = null));
    return line.loading;
  }

  async #earlier(line) {
    const { source, symbol, timeframe, earlier: cursor } = line;
    try {
      const { bars, next_cursor: earlier } = await this.api.get("bars", {
        source,
        symbol,
        timeframe,
        limit: BARS,
        cursor,
      });
      line.earlier = earlier;
      if (!bars.length) return;
      for (const item of bars) line.put(barOf(item));
      await this.#signalsOf(line, { since: bars[0].open_time, until: bars.at(-1).open_time });
    } catch {
      line.failedAt = Date.now(); // the view stays as it is; whoever looks on asks again
      return;
    }
    this.page.foundBars(line);
  }

  /** The figures of the last day, and the costs. */
  async figures() {
    const since = new Date(Date.now() - DAY_MS).toISOString();
    await Promise.all([
      this.#figure("stats", { since }, ["p-ratings", "p-latency"], (stats) => this.page.foundStats(stats)),
      this.#figure("costs", { days: DAYS }, ["p-cost"], (costs) => this.page.foundCosts(costs)),
    ]);
  }

  /** Since when rating is paused, and by whom. */
  async pause() {
    try {
      this.page.foundPause((await this.api.get("control")).pause);
    } catch {
      this.page.foundPause(null);
    }
  }

  async #figure(path, params, ids, found) {
    let answer;
    try {
      answer = await this.api.get(path, params);
    } catch (error) {
      if (!unanswered(error) && ![401, 403].includes(error.status)) this.page.noFigures(ids, error.message);
      return;
    }
    found(answer);
  }
}
