// One signal, whole: verdict, decision, calls with prompt and raw reply, snapshot, outcome. Everything goes in as text.

import { $, badge, fill, h, listed, note, stateOf, table } from "./dom.js";
import { ratingInWords, reasonOf } from "./feed.js";
import {
  amount,
  clock,
  count,
  day,
  duration,
  moment,
  NONE,
  percent,
  price,
  signed,
  timeframeMs,
  usd,
} from "./format.js";

const SNAPSHOT_BARS = 12;

export class Detail {
  constructor(api, market) {
    this.api = api;
    this.market = market;
    this.dialog = $("detail");
    this.asked = 0;
    this.dialog.addEventListener("click", (event) => event.target === this.dialog && this.dialog.close());
    this.dialog.addEventListener("close", () => {
      const { activeElement: focused } = document;
      if (focused === document.body || this.dialog.contains(focused)) rowButton(this.id)?.focus();
      this.asked++;
      this.id = null;
      if (location.hash) history.replaceState(null, "", location.pathname + location.search);
    });
  }

  /** Show a signal at once with what is known of it, then with everything. */
  async open(id) {
    const asked = ++this.asked;
    this.id = id;
    const known = this.market.signals.get(id);
    this.#draw(known ?? { signal: id }, [
      h("div", { class: "loading block", "aria-busy": true }, h("i"), h("i"), h("i"), h("i")),
    ]);
    if (!this.dialog.open) this.dialog.showModal();
    history.replaceState(null, "", `#${id}`);
    try {
      const item = await this.api.get(`signals/${encodeURIComponent(id)}`);
      if (asked === this.asked) this.#draw(item, sections(item));
    } catch (error) {
      if (asked !== this.asked) return;
      const again = h("button", { type: "button", onclick: () => this.open(id) }, "Try again");
      this.#draw(known ?? { signal: id }, [
        h("div", { class: "note" }, note("The signal could not be read", error.message, again)),
      ]);
    }
  }

  /** A verdict came, or its signal is rated again: show it where that is open. */
  refresh(item) {
    if (this.dialog.open && this.id === item.signal) this.open(item.signal);
  }

  #draw(item, rest) {
    const scrolled = this.dialog.scrollTop;
    const focused = this.dialog.contains(document.activeElement);
    const close = h(
      "button",
      { type: "button", class: "icon close", "aria-label": "Close", onclick: () => this.dialog.close() },
      "✕",
    );
    fill(
      this.dialog,
      h(
        "header",
        {},
        item.symbol ? badge(item) : null,
        h(
          "h2",
          { id: "detail-title" },
          h("bdi", {}, item.symbol ?? "Signal"),
          " ",
          item.side ? h("span", { class: `side ${item.side}` }, item.side) : null,
          h("span", { class: "unseen" }, item.symbol ? `, ${ratingInWords(item)}` : ""),
        ),
        h(
          "p",
          { class: "quiet" },
          listed([
            item.strategy,
            item.timeframe,
            item.close_time && `${day(Date.parse(item.close_time))} ${clock(Date.parse(item.close_time), true)} UTC`,
          ]),
        ),
        close,
      ),
      item.symbol ? verdict(item) : null,
      rest,
    );
    this.dialog.scrollTop = scrolled;
    if (focused) close.focus();
  }
}

/** The list's row of a signal: it may be another than the one that was chosen, its verdict having come meanwhile. */
const rowButton = (id) => [...$("feed").querySelectorAll("button")].find((button) => button.dataset.signal === id);

function verdict(item) {
  const known = stateOf(item) === "rated";
  return h(
    "section",
    { class: "verdict" },
    h("p", { class: "rationale", dir: "auto" }, reasonOf(item) || STILL[stateOf(item)] || NONE),
    h(
      "dl",
      { class: "facts" },
      facts({
        rating: known ? `${item.rating} of 5` : ratingInWords(item),
        confidence: known ? percent(item.confidence) : null,
        action: item.action,
        price: price(item.price),
        strength: rounded(item.strength, 3),
        model: item.model && `${item.model}${item.fallback ? " (fallback)" : ""}`,
        cost: item.model ? usd(item.cost_usd) : null,
        took: item.processing_ms === null ? null : duration(item.processing_ms),
        origin: item.origin === "loop" ? "a strategy here" : item.origin,
        signal: item.signal,
      }),
    ),
  );
}

const STILL = { waiting: "Waits for its rating." };

function sections(item) {
  const calls = item.calls ?? [];
  return [
    section(
      "Decision",
      item.decision
        ? [
            h("p", {}, h("b", {}, item.decision)),
            h("ul", { class: "tree" }, item.decision_reasons.map((reason) => h("li", { dir: "auto" }, reason))),
          ]
        : h("p", { class: "quiet" }, "None: there is no reply to decide on."),
    ),
    section(
      `Calls (${calls.length})`,
      calls.length ? calls.map(call) : h("p", { class: "quiet" }, "No model was called about it."),
    ),
    section("Snapshot", item.snapshot ? snapshot(item.snapshot) : h("p", { class: "quiet" }, "None was kept.")),
    section("Outcome", outcome(item)),
  ];
}

const section = (title, ...content) => h("section", {}, h("h3", {}, title), content);

function call(one, index, all) {
  const tokens = [one.tokens_in ?? one.prompt_tokens, one.tokens_out ?? one.completion_tokens];
  return h(
    "details",
    { class: "call", open: index === all.length - 1 },
    h(
      "summary",
      {},
      h("b", {}, one.model ?? "call"),
      " ",
      h(
        "span",
        { class: one.error ? "warn" : "quiet" },
        [
          one.error ? "failed" : null,
          duration(one.latency_ms),
          usd(one.cost_usd),
          tokens.some((number) => Number.isFinite(number)) && `${count(tokens[0])} → ${count(tokens[1])} tokens`,
        ]
          .filter(Boolean)
          .join(" · "),
      ),
    ),
    one.requested_at
      ? h("p", { class: "quiet" }, `asked ${one.requested_at.replace("T", " ").replace(/(\.\d+)?Z$/, "")} UTC`)
      : null,
    one.error ? text("Error", one.error) : null,
    messages(one.prompt).map(([role, content]) => text(`Prompt: ${role}`, content)),
    one.reply === null || one.reply === undefined
      ? h("p", { class: "quiet" }, "There was no reply.")
      : text("Raw reply", one.reply),
  );
}

function messages(prompt) {
  if (prompt === null || prompt === undefined) return [];
  if (!Array.isArray(prompt)) return [["", asText(prompt)]];
  return prompt.map((message) => [message.role ?? "", asText(message.content ?? message)]);
}

const rounded = (value, digits = 7) => (typeof value === "number" ? Number(value.toPrecision(digits)) : value);

const asText = (value) => (typeof value === "string" ? value : JSON.stringify(value, null, 2));

const text = (title, content) =>
  h("figure", {}, h("figcaption", {}, title), h("pre", { tabindex: "0", dir: "auto" }, asText(content)));

function snapshot(kept) {
  const bars = (kept.bars ?? []).slice(-SNAPSHOT_BARS);
  const indicators = Object.fromEntries(
    Object.entries(kept.indicators ?? {}).map(([name, value]) => [name, rounded(value)]),
  );
  const told = kept.note ?? kept.origin;
  if (!told && !bars.length && !Object.keys(indicators).length) {
    return h("p", { class: "quiet" }, "No bars and no indicators were known at its close.");
  }
  return [
    told ? h("p", { class: "quiet" }, asText(told)) : null,
    Object.keys(indicators).length
      ? h(
          "dl",
          { class: "facts" },
          facts(indicators, false, (name) => name),
        )
      : null,
    bars.length ? barTable(bars) : null,
  ];
}

function barTable(bars) {
  const names = ["open_time", "open", "high", "low", "close", "volume"];
  const cell = (bar, name, at) => (Array.isArray(bar) ? bar[at] : bar[name]);
  const shown = (name, value) =>
    name === "open_time"
      ? String(value ?? "")
          .replace("T", " ")
          .replace(/(\.\d+)?(Z|\+00:00)$/, "")
      : name === "volume"
        ? amount(value)
        : price(value);
  return table(
    "Bars of the snapshot",
    names.map((name) => name.replace("_", " ")),
    bars.map((bar) => names.map((name, at) => shown(name, cell(bar, name, at)))),
  );
}

/** What the market did in the bars after the signal. */
function outcome(item) {
  const horizons = item.outcome?.horizons ?? [];
  if (!horizons.length) return h("p", { class: "quiet" }, "None yet: no bar of its market has been stored since.");
  const seconds = timeframeMs(item.timeframe) < 60000;
  return [
    h(
      "p",
      { class: "quiet" },
      "Of the signal's price. Best and worst are in its direction, which an exit does not state.",
    ),
    table(
      "What the market did after the signal",
      ["after", "market", "best", "worst", "close", "until"],
      horizons.map((one) => [
        one.bars === 1 ? "1 bar" : `${count(one.bars)} bars`,
        signed(one.forward_return),
        signed(one.mfe),
        signed(one.mae),
        price(one.close),
        moment(Date.parse(one.until), seconds),
      ]),
    ),
  ];
}

/** Name and value, unknown ones left out (or shown as unknown). */
function facts(values, leaveOut = true, worded = (name) => name.replaceAll("_", " ")) {
  return Object.entries(values)
    .filter(([, value]) => !leaveOut || (value !== null && value !== undefined && value !== ""))
    .map(([name, value]) =>
      h(
        "div",
        {},
        h("dt", {}, worded(name)),
        h("dd", {}, value === null || value === undefined ? NONE : String(value)),
      ),
    );
}

/** Any JSON as nested lists. */
function tree(value) {
  if (value === null || value === undefined) return NONE;
  if (typeof value !== "object") return String(value);
  if (Array.isArray(value))
    return value.length
      ? h(
          "ul",
          { class: "tree" },
          value.map((one) => h("li", {}, tree(one))),
        )
      : NONE;
  return h(
    "dl",
    { class: "facts" },
    Object.entries(value).map(([name, one]) =>
      h("div", {}, h("dt", {}, name.replaceAll("_", " ")), h("dd", {}, tree(one))),
    ),
  );
}
