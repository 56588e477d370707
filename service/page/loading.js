// What is asked for: once at the start, again after a reset, and the figures from time to time.

import { Refused } from "./api.js";
import { barOf } from "./market.js";

const BARS = 1500;
const SIGNALS = 300;
const AHEAD = 30;
const DAYS = 14;
const DAY_MS = 86400000;

/** Whether nobody answered at all: the connection's own message says so already. */
export const unanswered = (error) => !(error instanceof Refused);

/** The reason of a failure, for a person. */
export const whyOf = (error) => (unanswered(error) ? "the daemon does not answer" : error.message);

export class Loading {
  /**
   * Fills `market` and tells `page`: `foundMarkets()`, `noMarkets(why)`, `foundSignals(why)` and `foundBars(line)`, each
   * with what went wrong or null, `foundStats(stats)`, `foundCosts(costs)`, and `noFigures(ids, why)`.
   */
  constructor(api, market, page) {
    this.api = api;
    this.market = market;
    this.page = page;
    this.run = 0;
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

  async #signals(run) {
    let why = null;
    try {
      const { signals } = await this.api.get("signals", { limit: SIGNALS });
      for (const item of signals) this.market.put(item);
    } catch (error) {
      why = whyOf(error);
    }
    if (run === this.run) this.page.foundSignals(why);
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
      const [{ bars }, { signals }] = await Promise.all([
        this.api.get("bars", { source, symbol, timeframe, limit: BARS }),
        this.api.get("signals", { symbol, timeframe, limit: SIGNALS }),
      ]);
      for (const item of bars) line.put(barOf(item));
      for (const item of signals) this.market.put(item);
      line.loaded = true;
      line.error = null;
    } catch (error) {
      line.error = whyOf(error);
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

  async #figure(path, params, ids, found) {
    let answer;
    try {
      answer = await this.api.get(path, params);
    } catch (error) {
      if (!unanswered(error) && error.status !== 401) this.page.noFigures(ids, error.message);
      return;
    }
    found(answer);
  }
}
