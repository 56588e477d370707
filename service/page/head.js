// The head of the page: connection, health with its reasons, pause, and what is said when something is wrong.

import { $, fill, h, setText } from "./dom.js";
import { clock, duration, moment } from "./format.js";

const WAYS = { page: "from this page", cli: "from the command line", api: "by the API" };
const LINK = { connecting: "Connecting", live: "Live", lost: "Disconnected", refused: "No access" };

export class Head {
  /**
   * `onRetry()` when somebody does not want to wait, `onTurn()` when rating was paused or goes on, `onToken()` when
   * somebody wants to give a token.
   */
  constructor({ onRetry, onTurn, onToken }) {
    this.health = null;
    this.busy = false;
    this.pause = null;
    this.link = { at: "connecting" };
    this.onRetry = onRetry;
    this.onTurn = onTurn;
    this.onToken = onToken;
    $("health").addEventListener("click", () => this.toggleReasons());
    document.addEventListener("click", (event) => {
      if (!event.target.closest(".health-box")) this.toggleReasons(false);
    });
    document.addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || $("reasons").hidden) return;
      this.toggleReasons(false);
      $("health").focus();
    });
    this.tick();
  }

  toggleReasons(open = $("reasons").hidden) {
    $("reasons").hidden = !open;
    $("health").setAttribute("aria-expanded", String(open));
  }

  /** Once a second, as the second begins. */
  tick() {
    const now = Date.now();
    setTimeout(() => this.tick(), 1000 - (now % 1000));
    setText($("clock"), clock(now, true));
    if (this.link.at === "lost") this.#lost(now);
  }

  setLink(link) {
    const before = this.link.at;
    this.link = link;
    $("link").dataset.state = link.at;
    setText($("link").querySelector("span"), link.at === "connecting" && link.since ? "Reconnecting" : LINK[link.at]);
    document.body.classList.toggle("stale", link.at === "lost");
    this.#allowPause();
    if (link.at !== "live") {
      $("health").dataset.state = "unknown";
      setText($("health").querySelector("span"), "Health not known");
    }
    if (link.at === "lost") this.#lost(Date.now());
    else if (link.at === "refused") this.#refused();
    else if (before === "lost" || before === "refused") this.#banner(null);
    if (link.at === "live") this.#warn();
  }

  /** Since when rating is paused, by whom and why, as far as it is known. */
  setPause(pause) {
    this.pause = pause;
    this.#warn();
  }

  #paused() {
    if (!this.pause) return "Rating is paused.";
    const { since, via, who, reason } = this.pause;
    const by = [WAYS[via] ?? via, who && `(${who})`].filter(Boolean).join(" ");
    return `Rating is paused since ${moment(Date.parse(since))} UTC, ${by}${reason ? `: “${reason}”.` : "."}`;
  }

  #lost(now) {
    const { since, retryAt, why } = this.link;
    const left = Math.max(0, Math.ceil((retryAt - now) / 1000));
    const text =
      `No connection since ${clock(since, true)} UTC (${duration(now - since)}): ${why}. What is shown is from before. ` +
      (left ? `Trying again in ${left} s.` : "Trying again now.");
    this.#banner("lost", text, h("button", { type: "button", onclick: this.onRetry }, "Try now"));
  }

  #refused() {
    const button = h("button", { type: "button", onclick: this.onToken }, "Enter a token");
    this.#banner("refused", "Nothing is shown without a token.", button);
  }

  /** A message over the whole page; the same kind only gets its words changed, so it is not read out each second. */
  #banner(kind, text = "", button = null) {
    const banner = $("banner");
    if (kind === null) {
      banner.hidden = true;
      banner.dataset.kind = "";
      return;
    }
    if (banner.dataset.kind !== kind) {
      banner.dataset.kind = kind;
      fill(banner, h("p", { "aria-live": "off" }), button);
    }
    banner.hidden = false;
    setText(banner.querySelector("p"), text);
  }

  setHealth(health) {
    if (this.health && health.version && this.health.version !== health.version) this.updated = true;
    const turned = Boolean(health.paused) !== Boolean(this.health?.paused);
    this.health = health;
    if (turned) this.onTurn();
    const reasons = health.reasons ?? [];
    const wrong = reasons.filter((one) => !one.ok);
    const state = health.ready ? "good" : "bad";
    const words =
      health.phase === "stopping"
        ? "Stopping"
        : health.ready
          ? "Ready"
          : wrong.length
            ? `${wrong.length} ${wrong.length === 1 ? "thing is" : "things are"} wrong`
            : "Not ready";
    $("health").dataset.state = health.phase === "stopping" ? "bad" : state;
    setText($("health").querySelector("span"), words);
    const shown = JSON.stringify([reasons, health.version, health.phase]);
    if (shown !== this.reasonsShown) {
      this.reasonsShown = shown;
      fill(
        $("reasons"),
        h("h2", {}, health.ready ? "Ready" : "Not ready"),
        h(
          "ul",
          {},
          reasons.map((one) =>
            h(
              "li",
              { class: one.ok ? "good" : "bad" },
              h("span", { class: "mark", "aria-hidden": true }, one.ok ? "✓" : "!"),
              h("b", {}, String(one.check).replaceAll("_", " ")),
              h("span", { class: "unseen" }, one.ok ? "good:" : "wrong:"),
              h("span", { class: "quiet" }, one.detail),
            ),
          ),
        ),
        health.version ? h("p", { class: "quiet" }, `Tradent ${health.version}, ${health.phase ?? ""}`) : null,
      );
    }
    const pause = $("pause");
    this.#allowPause();
    pause.setAttribute("aria-pressed", String(Boolean(health.paused)));
    setText(pause, health.paused ? "Resume rating" : "Pause rating");
    this.#warn();
  }

  #allowPause() {
    $("pause").disabled = this.busy || this.link.at !== "live" || this.health === null;
  }

  setBusy(busy) {
    this.busy = busy;
    this.#allowPause();
  }

  #warn() {
    if (this.link.at !== "live" || !this.health) return;
    const wrong = (this.health.reasons ?? []).find((one) => !one.ok);
    if (this.updated) {
      this.#banner(
        "updated",
        "The daemon has another version than this page.",
        h("button", { type: "button", onclick: () => location.reload() }, "Reload"),
      );
    } else if (!this.health.ready && wrong) {
      this.#banner(
        "unready",
        `${String(wrong.check).replaceAll("_", " ")}: ${wrong.detail}`,
        h(
          "button",
          {
            type: "button",
            onclick: (event) => (event.stopPropagation(), this.toggleReasons(true), $("health").focus()),
          },
          "All reasons",
        ),
      );
    } else if (this.health.paused) {
      this.#banner("paused", `${this.#paused()} Signals are found and kept; they wait in the queue.`);
    } else {
      this.#banner(null);
    }
  }
}
