// The page put together: what is asked for at the start, what each event changes, and one drawing a frame.

import { Api, Refused } from "./api.js";
import { Chart } from "./chart.js";
import { Detail } from "./detail.js";
import { $, note, setText } from "./dom.js";
import { Feed } from "./feed.js";
import { count, price, signed, timeframeMs } from "./format.js";
import { Head } from "./head.js";
import { askForToken, listenToKeys } from "./keys.js";
import { Live } from "./live.js";
import { barOf, keyOf, Market } from "./market.js";
import { Markets } from "./markets.js";
import * as panels from "./panels.js";
import { drawTable } from "./table.js";
import { followTheme } from "./theme.js";
import { barInWords } from "./words.js";

const BARS = 1500;
const AHEAD = 30;
const SIGNALS = 300;
const FIGURES_EVERY_MS = 15000;
const FIGURES_AFTER_MS = 2000;
const SIMULATED = "simulated";

class Page {
  constructor() {
    this.api = new Api();
    this.market = new Market();
    this.line = null;
    this.dirty = { chart: false, feed: false, rows: new Set() };
    this.loads = 0;
    this.chart = new Chart($("chart"), {
      onOpen: (mark) => this.detail.open(mark.signal),
      onCursor: (...at) => this.readout(...at),
    });
    this.detail = new Detail(this.api, this.market);
    this.feed = new Feed(this.market, { onOpen: (item) => this.detail.open(item.signal), current: () => this.line });
    this.markets = new Markets((line) => this.choose(line));
    this.head = new Head({ onRetry: () => this.live.retryNow(), onPause: () => this.pause() });
    this.live = new Live(
      this.api,
      (kind, data) => this.take(kind, data),
      (state) => this.linked(state),
    );
    this.api.onUnauthorised = (why) => this.unauthorised(why);
    this.turnTheme = followTheme(() => {
      this.chart.restyle();
      this.mark("rows", ...this.market.series.keys());
    });
    this.tools();
    this.start();
    setInterval(() => document.hidden || this.again(), FIGURES_EVERY_MS);
  }

  /** Everything anew: events first, so that nothing falls between them and what is asked for. */
  start() {
    this.live.start();
    this.load();
  }

  /** The figures anew; everything, where it could not be read before. */
  again() {
    if (this.head.link.at !== "live") return;
    if (this.feed.error || this.line?.error || !this.market.series.size) this.load();
    else this.figures();
  }

  async load() {
    const load = ++this.loads;
    this.figures();
    try {
      const { streams } = await this.api.get("streams");
      if (load !== this.loads) return;
      for (const stream of streams) this.market.line(stream);
      this.setMarkets();
    } catch (error) {
      if (load === this.loads && !unanswered(error))
        this.chartNote("error", "The markets could not be read", error.message, () => this.load());
      if (load === this.loads && !this.market.series.size)
        this.markets.set([], unanswered(error) ? "the daemon does not answer" : error.message);
    }
    if (load === this.loads) await Promise.all([this.loadFeed(load), this.line && this.loadBars(this.line, true)]);
    for (const line of this.markets.lines?.slice(0, AHEAD) ?? []) {
      if (load !== this.loads) return;
      if (!line.loaded) await this.loadBars(line);
    }
  }

  setMarkets() {
    this.markets.set(this.market.series.values());
    const [first] = this.markets.lines;
    if (!first) {
      this.chartNote(
        "empty",
        "No bars yet",
        "The feed has not delivered a closed bar. The chart begins with the first one.",
      );
      return;
    }
    if (!this.line) this.choose(this.wanted() ?? first);
    else this.markets.choose(this.line.key);
    this.mark("rows", ...this.market.series.keys());
  }

  /** The market of the last visit in this tab. */
  wanted() {
    return this.market.series.get(sessionStorage.getItem("tradent-market"));
  }

  async loadFeed(load) {
    try {
      const { signals } = await this.api.get("signals", { limit: SIGNALS });
      if (load !== this.loads) return;
      for (const item of signals) this.market.put(item);
      this.feed.error = null;
    } catch (error) {
      this.feed.error = unanswered(error) ? "the daemon does not answer" : error.message;
    }
    this.feed.ready = true;
    this.mark("feed");
    this.mark("chart");
    if (location.hash.startsWith("#sig-") && !this.detail.id) this.detail.open(location.hash.slice(1));
  }

  /** The past of one line, once; its signals too. */
  async loadBars(line, again = false) {
    if (line.loading || (line.loaded && !again)) return line.loading;
    line.loading = this.#loadBars(line).finally(() => (line.loading = null));
    return line.loading;
  }

  async #loadBars(line) {
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
      line.error = unanswered(error) ? "the daemon does not answer" : error.message;
    }
    this.mark("rows", line.key);
    this.mark("feed");
    if (line === this.line) this.mark("chart");
  }

  choose(line) {
    this.line = line;
    sessionStorage.setItem("tradent-market", line.key);
    setText($("symbol"), line.symbol);
    setText($("timeframe"), line.timeframe);
    $("simulated").hidden = line.source !== SIMULATED;
    document.title = `${line.symbol} · Tradent`;
    this.markets.choose(line.key);
    this.chart.open(timeframeMs(line.timeframe));
    this.mark("chart");
    this.mark("feed");
    this.loadBars(line);
  }

  take(kind, data) {
    if (kind === "bar") {
      const known = this.market.series.has(keyOf(data));
      const line = this.market.line(data);
      line.put(barOf(data));
      if (!known) this.setMarkets();
      this.mark("rows", line.key);
      if (line === this.line) this.mark("chart");
    } else if (kind === "signal" || kind === "verdict") {
      if (!this.market.put(data)) return;
      this.mark("feed");
      if (data.key === this.line?.key) this.mark("chart");
      if (kind === "verdict") this.verdict(data);
    } else if (kind === "health") {
      this.head.setHealth(data);
      this.drawHealth(data);
    } else if (kind === "reset") {
      for (const line of this.market.series.values()) line.loaded = false;
      this.load();
    }
  }

  verdict(item) {
    this.feed.say(item);
    this.detail.refresh(item);
    this.figuresSoon ??= setTimeout(() => {
      this.figuresSoon = null;
      this.figures();
    }, FIGURES_AFTER_MS);
  }

  drawHealth(health) {
    const shown = JSON.stringify([health.queue, health.limits, health.cost]);
    if (shown === this.healthShown) return;
    this.healthShown = shown;
    panels.drawQueue(health.queue, this.stats?.statuses);
    panels.drawQuota(health.limits);
    panels.drawCost(this.costs, health.cost);
  }

  async figures() {
    const since = new Date(Date.now() - 86400000).toISOString();
    const ask = async (path, params, ids, draw) => {
      try {
        draw(await this.api.get(path, params));
      } catch (error) {
        if (!unanswered(error) && error.status !== 401) panels.drawTrouble(ids, error.message);
      }
    };
    await Promise.all([
      ask("stats", { since }, ["p-ratings", "p-latency"], (stats) => {
        this.stats = stats;
        panels.drawRatings(stats);
        panels.drawLatency(stats);
        if (!this.head.health) panels.drawQueue(stats.queue, stats.statuses);
      }),
      ask("costs", { days: 14 }, ["p-cost"], (costs) => {
        this.costs = costs;
        panels.drawCost(costs, this.head.health?.cost);
      }),
    ]);
  }

  linked(state) {
    this.head.setLink(state);
    if (state.at === "live" && state.again) this.figures();
    if (state.at === "live" && (!this.feed.ready || this.feed.error || !this.line?.loaded)) this.load();
    $("pause").disabled = state.at !== "live";
  }

  unauthorised(why) {
    this.live.stop();
    this.loads++;
    this.head.setLink({ at: "refused" });
    askForToken(
      (token) => {
        this.api.keep(token);
        this.start();
      },
      this.api.token ? why : "",
    );
  }

  async pause() {
    const act = this.head.health?.paused ? "resume" : "pause";
    this.head.setBusy(true);
    try {
      await this.api.post(`control/${act}`);
      this.head.setHealth({ ...this.head.health, paused: act === "pause" });
      this.toast(act === "pause" ? "Rating is paused." : "Rating goes on.");
    } catch (error) {
      if (error instanceof Refused && error.status === 403) {
        askForToken(
          (token) => {
            this.api.keep(token);
            this.start();
            this.pause();
          },
          "",
          true,
        );
      } else if (!(error instanceof Refused && error.status === 401)) {
        this.toast(`It was not ${act}d: ${unanswered(error) ? "the daemon does not answer" : error.message}`);
      }
    } finally {
      this.head.setBusy(false);
    }
  }

  toast(text) {
    const toast = $("toast");
    toast.hidden = false;
    setText(toast, text);
    clearTimeout(this.toastTimer);
    this.toastTimer = setTimeout(() => (toast.hidden = true), 6000);
  }

  tools() {
    const acts = {
      in: () => this.chart.zoom(0.7),
      out: () => this.chart.zoom(1.4),
      all: () => this.chart.showAll(),
      now: () => this.chart.showNow(),
    };
    for (const button of document.querySelectorAll("[data-chart]"))
      button.addEventListener("click", acts[button.dataset.chart]);
    const table = () => {
      this.asTable = !this.asTable;
      $("as-table").setAttribute("aria-pressed", String(this.asTable));
      $("chart-table").hidden = !this.asTable;
      $("chart").hidden = this.asTable;
      this.mark("chart");
    };
    $("as-table").addEventListener("click", table);
    const step = (by) => {
      const line = this.line && this.markets.neighbour(this.line.key, by);
      if (line) this.choose(line);
    };
    listenToKeys({
      "[": () => step(-1),
      "]": () => step(1),
      j: () => this.feed.step(1),
      k: () => this.feed.step(-1),
      c: () => $("chart").focus(),
      t: table,
      d: () => this.turnTheme(),
      p: () => $("pause").disabled || this.pause(),
    });
  }

  readout(bar, marks, byKey) {
    const line = bar
      ? `O ${price(bar.o)}  H ${price(bar.h)}  L ${price(bar.l)}  C ${price(bar.c)}${bar.v === null ? "" : `  V ${count(bar.v)}`}`
      : "";
    setText($("readout"), line);
    if (bar && byKey) setText($("said"), barInWords(bar, marks));
  }

  chartNote(state, title, text = "", again = null) {
    $("chart").closest(".chart-box").dataset.state = state;
    const button =
      again &&
      Object.assign(document.createElement("button"), { type: "button", textContent: "Try again", onclick: again });
    $("chart-note").replaceChildren(...note(title, text, button));
  }

  /** Note what has changed; it is drawn in the next frame, however much comes in until then. */
  mark(what, ...keys) {
    if (what === "rows") for (const key of keys) this.dirty.rows.add(key);
    else this.dirty[what] = true;
    this.frame ??= requestAnimationFrame(() => {
      this.frame = null;
      this.draw();
    });
  }

  draw() {
    const { chart, feed, rows } = this.dirty;
    this.dirty = { chart: false, feed: false, rows: new Set() };
    if (rows.size) this.markets.draw(rows, this.chart.colours);
    if (feed) this.feed.draw();
    if (chart && this.line) this.drawChart(this.line);
  }

  drawChart(line) {
    const { bars } = line;
    if (!bars.length) {
      if (line.error)
        this.chartNote("error", "The bars could not be read", line.error, () => this.loadBars(line, true));
      else if (line.loaded)
        this.chartNote(
          "empty",
          "No bars yet",
          `The feed has not delivered a closed ${line.timeframe} bar of ${line.symbol}.`,
        );
      else this.chartNote("loading", "");
    } else {
      $("chart").closest(".chart-box").dataset.state = "there";
      $("chart-note").replaceChildren();
    }
    const marks = this.market.of(line.key);
    this.chart.show(bars, marks);
    const newest = bars.at(-1);
    const before = bars.at(-2);
    setText($("last"), newest ? price(newest.c) : "");
    $("last").dataset.change = newest && before ? `${signed(newest.c / before.c - 1)}` : "";
    $("chart").setAttribute(
      "aria-label",
      newest
        ? `${line.symbol} ${line.timeframe}: ${bars.length} candles, ${marks.length} signals, newest close ${price(newest.c)}`
        : "Candles",
    );
    if (this.asTable)
      drawTable($("chart-table"), line, marks, this.chart.stepMs, (mark) => this.detail.open(mark.signal));
  }
}

/** Whether nobody answered at all: the connection's own message says so already. */
const unanswered = (error) => !(error instanceof Refused);

window.tradent = new Page();
