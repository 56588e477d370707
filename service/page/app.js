// The page put together: what each event and each answer changes, and one drawing a frame.

import { Api } from "./api.js";
import { Chart } from "./chart.js";
import { Detail } from "./detail.js";
import { $, h, note, setText } from "./dom.js";
import { Feed } from "./feed.js";
import { amount, price, signed, timeframeMs } from "./format.js";
import { Head } from "./head.js";
import { listenToKeys } from "./keys.js";
import { Live } from "./live.js";
import { Loading } from "./loading.js";
import { barOf, keyOf, Market } from "./market.js";
import { Markets } from "./markets.js";
import * as panels from "./panels.js";
import { Steering } from "./steering.js";
import { keep, kept } from "./storage.js";
import { Table } from "./table.js";
import { followTheme } from "./theme.js";
import { barInWords } from "./words.js";

const FIGURES_EVERY_MS = 15000;
const SIMULATED = "simulated";
const SHOWN = "tradent-market";

class Page {
  constructor() {
    this.line = null;
    this.asTable = false;
    this.dirty = { chart: false, feed: false, markets: false, ratings: false, rows: new Set() };
    this.market = new Market();
    this.api = new Api();
    this.api.onUnauthorised = (why) => this.unauthorised(why);
    this.loading = new Loading(this.api, this.market, this);
    this.live = new Live(
      this.api,
      (kind, data) => this.take(kind, data),
      (state) => this.linked(state),
    );
    this.head = new Head({
      onRetry: () => this.live.retryNow(),
      onTurn: () => this.loading.pause(),
      onToken: () => this.steering.unauthorised(),
    });
    this.steering = new Steering(this.api, this.head, () => this.start());
    this.detail = new Detail(this.api, this.market);
    const open = (item) => this.detail.open(item.signal);
    this.chart = new Chart($("chart"), {
      onOpen: open,
      onCursor: (...at) => this.readout(...at),
      onEdge: () => this.line && this.loading.earlier(this.line),
    });
    this.feed = new Feed(this.market, {
      onOpen: open,
      onOlder: (more) => this.loading.olderSignals(more),
      current: () => this.line,
    });
    this.table = new Table($("chart-table"), open);
    this.markets = new Markets(
      (line) => this.choose(line),
      (lines) => this.loading.see(lines),
    );
    this.turnTheme = followTheme(() => {
      this.chart.restyle();
      this.mark("rows", ...this.market.series.keys());
    });
    this.listen();
    this.start();
    setInterval(() => document.hidden || this.again(), FIGURES_EVERY_MS);
    document.addEventListener("visibilitychange", () => document.hidden || this.awake());
    addEventListener("online", () => this.awake());
    addEventListener("hashchange", () => this.openLinked());
  }

  /** Everything anew: events first, so that nothing falls between them and what is asked for. */
  start() {
    this.live.start();
    this.loading.everything();
  }

  /** Somebody looks again, or the network is back. */
  awake() {
    this.live.retryNow();
    this.again();
  }

  /** The figures anew; everything, where it could not be read before. */
  again() {
    if (this.head.link.at !== "live") return;
    if (this.feed.error || this.line?.error || !this.market.series.size) this.loading.everything();
    else this.loading.figures();
  }

  listen() {
    const zoom = {
      in: () => this.chart.zoom(0.7),
      out: () => this.chart.zoom(1.4),
      all: () => this.chart.showAll(),
      now: () => this.chart.showNow(),
    };
    for (const button of document.querySelectorAll("[data-chart]")) {
      button.addEventListener("click", zoom[button.dataset.chart]);
    }
    $("as-table").addEventListener("click", () => this.turnTable());
    listenToKeys({
      "[": () => this.step(-1),
      "]": () => this.step(1),
      j: () => this.feed.step(1),
      k: () => this.feed.step(-1),
      c: () => (this.asTable ? $("chart-table") : $("chart")).focus(),
      t: () => this.turnTable(),
      d: () => this.turnTheme(),
      p: () => $("pause").click(),
    });
  }

  choose(line) {
    this.line = line;
    keep("sessionStorage", SHOWN, line.key);
    setText($("symbol"), line.symbol);
    setText($("timeframe"), line.timeframe);
    $("simulated").hidden = line.source !== SIMULATED;
    document.title = `${line.symbol} · Tradent`;
    this.markets.choose(line.key);
    this.chart.open(timeframeMs(line.timeframe));
    this.mark("chart");
    this.mark("feed");
    this.loading.bars(line);
  }

  step(by) {
    const line = this.line && this.markets.neighbour(this.line.key, by);
    if (line) this.choose(line);
  }

  turnTable() {
    this.asTable = !this.asTable;
    $("as-table").setAttribute("aria-pressed", String(this.asTable));
    $("chart-table").hidden = !this.asTable;
    $("chart").hidden = this.asTable;
    $("skip").hash = this.asTable ? "#chart-table" : "#chart";
    this.mark("chart");
  }

  take(kind, data) {
    if (kind === "bar") {
      const isNew = !this.market.series.has(keyOf(data));
      const line = this.market.line(data);
      line.put(barOf(data));
      if (isNew) this.mark("markets");
      this.mark("rows", line.key);
      if (line === this.line) this.mark("chart");
    } else if (kind === "signal" || kind === "verdict") {
      data.told = true;
      if (!this.market.put(data)) return;
      this.mark("feed");
      if (data.key === this.line?.key) this.mark("chart");
      if (kind === "verdict") this.verdict(data);
      else if (data.again) this.detail.refresh(data);
    } else if (kind === "health") {
      const wasReady = this.head.health?.ready;
      this.head.setHealth(data);
      if (data.ready && wasReady === false) this.again();
      this.drawHealth(data);
    } else if (kind === "reset") {
      for (const line of this.market.series.values()) line.loaded = false;
      this.loading.everything();
    }
  }

  verdict(item) {
    this.feed.say(item);
    this.detail.refresh(item);
    if (!this.stats) return;
    const more = (counts, name) => {
      if (counts && name !== null) counts[name] = (counts[name] ?? 0) + 1;
    };
    more(this.stats.ratings, item.rating);
    more(this.stats.statuses, item.status);
    more(this.stats.decisions, item.decision);
    this.mark("ratings");
  }

  linked(state) {
    this.head.setLink(state);
    if (state.at !== "live") return;
    if (this.feed.error || this.line?.error || (this.feed.ready && !this.line)) this.loading.everything();
    else if (state.again) this.loading.figures();
  }

  unauthorised(why) {
    this.live.stop();
    this.loading.stop();
    this.head.setLink({ at: "refused" });
    this.steering.unauthorised(why);
  }

  foundMarkets() {
    this.markets.set(this.market.series.values());
    const [first] = this.markets.lines;
    if (!first) {
      this.chartNote(
        "empty",
        "No bars yet",
        "The feed has not delivered a closed bar. The chart begins with the first.",
      );
      return;
    }
    if (!this.line) this.choose(this.market.series.get(kept("sessionStorage", SHOWN)) ?? first);
    else this.markets.choose(this.line.key);
    this.mark("rows", ...this.market.series.keys());
  }

  noMarkets(why) {
    if (this.market.series.size) return;
    this.markets.set([], why);
    this.chartNote("error", "The markets could not be read", why, () => this.loading.everything());
  }

  foundSignals(why, from = this.feed.from) {
    this.feed.error = why;
    this.feed.from = from;
    this.feed.ready = true;
    this.mark("feed");
    this.mark("chart");
    this.openLinked();
  }

  /** Open the signal that the page's address names. */
  openLinked() {
    const id = location.hash.slice(1);
    if (id.startsWith("sig-") && id !== this.detail.id) this.detail.open(id);
  }

  foundBars(line) {
    this.mark("rows", line.key);
    this.mark("feed");
    if (line === this.line) this.mark("chart");
  }

  foundStats(stats) {
    this.stats = stats;
    panels.drawRatings(stats);
    panels.drawLatency(stats);
    panels.drawQueue(this.head.health?.queue ?? stats.queue, stats.statuses);
  }

  foundCosts(costs) {
    this.costs = costs;
    panels.drawCost(costs, this.head.health?.cost);
  }

  foundPause(pause) {
    this.head.setPause(pause);
  }

  noFigures(ids, why) {
    panels.drawTrouble(ids, why);
  }

  drawHealth(health) {
    const shown = JSON.stringify([health.queue, health.limits, health.cost]);
    if (shown === this.healthShown) return;
    this.healthShown = shown;
    panels.drawQueue(health.queue, this.stats?.statuses);
    panels.drawQuota(health.limits);
    panels.drawCost(this.costs, health.cost);
  }

  readout(bar, marks, byKey) {
    const volume = bar && bar.v !== null ? `  V ${amount(bar.v)}` : "";
    const prices = bar && `O ${price(bar.o)}  H ${price(bar.h)}  L ${price(bar.l)}  C ${price(bar.c)}${volume}`;
    setText($("readout"), prices ?? "");
    if (bar && byKey) setText($("said"), barInWords(bar, marks, this.chart.stepMs < 60000));
  }

  chartNote(state, title, text = "", again = null) {
    const said = JSON.stringify([state, title, text, this.line?.key]);
    if (said === this.noted) return;
    this.noted = said;
    $("chart").closest(".chart-box").dataset.state = state;
    const button = again && h("button", { type: "button", onclick: again }, "Try again");
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
    const { chart, feed, markets, ratings, rows } = this.dirty;
    this.dirty = { chart: false, feed: false, markets: false, ratings: false, rows: new Set() };
    if (markets) this.foundMarkets();
    if (rows.size) this.markets.draw(rows, this.chart.colours);
    if (feed) this.feed.draw();
    if (ratings) panels.drawRatings(this.stats);
    if (chart && this.line) this.drawChart(this.line);
  }

  drawChart(line) {
    const { bars } = line;
    if (bars.length && line.error) {
      this.chartNote("partial", "Earlier bars could not be read", line.error, () => this.loading.bars(line, true));
    } else if (bars.length) this.chartNote("there", "");
    else if (line.error) {
      this.chartNote("error", "The bars could not be read", line.error, () => this.loading.bars(line, true));
    } else if (line.loaded) {
      this.chartNote("empty", "No bars yet", `The feed has not delivered a closed bar of ${line.symbol}.`);
    } else this.chartNote("loading", "");
    const marks = this.market.of(line.key);
    this.chart.show(bars, marks);
    const [before, newest] = [bars.at(-2), bars.at(-1)];
    setText($("last"), newest ? price(newest.c) : "");
    $("last").dataset.change = newest && before ? signed(newest.c / before.c - 1) : "";
    $("chart").setAttribute(
      "aria-label",
      newest
        ? `${line.symbol} ${line.timeframe}: ${bars.length} candles, ${marks.length} signals, newest close ${price(newest.c)}`
        : "Candles",
    );
    if (this.asTable) {
      this.table.draw(line, marks, this.chart.stepMs, (mark) => this.chart.indexOf(mark));
    }
  }
}

window.tradent = new Page();
