// The event stream, read by fetch so that a token can be sent; taken up again where it broke off.

import { Refused, saidBy } from "./api.js";

const SILENT_MS = 15000;
// Health comes each second: who comes back to the page need not wait for a connection that has said nothing for so long.
const DOUBTFUL_MS = 5000;
const LONGEST_WAIT_MS = 15000;

/**
 * Calls `onEvent(kind, data)` for each event and `onState(state)` at each change, where state is
 * {at: "connecting"}, {at: "live"}, {at: "lost", since, retryAt, why} or {at: "refused", why}.
 */
export class Live {
  constructor(api, onEvent, onState) {
    this.api = api;
    this.onEvent = onEvent;
    this.onState = onState;
    this.lastId = null;
    this.lostSince = null;
    this.heardAt = null;
    this.hurry = false;
    this.failures = 0;
    this.run = 0;
    this.wake = () => {};
  }

  /** Connect, and stay so until `stop`. */
  start() {
    this.stop();
    this.#follow(++this.run);
  }

  stop() {
    this.run++;
    this.aborter?.abort();
    this.hurry = false;
    this.wake();
  }

  /** Do not wait any longer, neither for the next try nor for a connection that is silent. */
  retryNow() {
    if (this.aborter && Date.now() - this.heardAt > DOUBTFUL_MS) {
      this.hurry = true;
      this.aborter.abort();
    }
    this.wake();
  }

  async #follow(run) {
    this.onState({ at: "connecting", since: this.lostSince });
    while (run === this.run) {
      let why = "the daemon closed the connection";
      try {
        await this.#read(run);
      } catch (error) {
        if (run !== this.run) return;
        if (error instanceof Refused && [401, 403].includes(error.status)) {
          this.onState({ at: "refused", why: error.message });
          this.api.onUnauthorised(error.message);
          return;
        }
        why = error instanceof Refused ? error.message : "the daemon does not answer";
      }
      if (run !== this.run) return;
      this.lostSince ??= this.heardAt;
      const wait = this.hurry ? 0 : Math.min(LONGEST_WAIT_MS, 500 * 2 ** this.failures++) * (0.75 + Math.random() / 2);
      this.hurry = false;
      this.onState({ at: "lost", since: this.lostSince, retryAt: Date.now() + wait, why });
      await this.#pause(wait);
    }
  }

  /** An event that cannot be shown costs itself, not the connection. */
  #tell(kind, data) {
    try {
      this.onEvent(kind, data);
    } catch (error) {
      console.error(`a ${kind} could not be shown`, error);
    }
  }

  #pause(ms) {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, ms);
      this.wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }

  async #read(run) {
    const aborter = new AbortController();
    this.aborter = aborter;
    this.heardAt = Date.now();
    let silence = setTimeout(() => aborter.abort(), SILENT_MS);
    try {
      const headers = this.api.headers({
        Accept: "text/event-stream",
        ...(this.lastId && { "Last-Event-ID": this.lastId }),
      });
      const answer = await fetch("api/v1/stream", { headers, signal: aborter.signal, cache: "no-store" });
      if (!answer.ok) throw new Refused(answer.status, await saidBy(answer));
      const again = this.lostSince !== null;
      this.lostSince = null;
      this.onState({ at: "live", again });
      const events = new EventText(
        (id) => (this.lastId = id),
        (kind, data) => this.#tell(kind, data),
      );
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      for (;;) {
        const { done, value } = await reader.read();
        if (done || run !== this.run) return;
        this.failures = 0;
        this.heardAt = Date.now();
        clearTimeout(silence);
        silence = setTimeout(() => aborter.abort(), SILENT_MS);
        events.take(value);
      }
    } finally {
      clearTimeout(silence);
      aborter.abort();
      if (this.aborter === aborter) this.aborter = null;
    }
  }
}

/** Server-sent events from text in pieces. An id counts once its event is whole. */
export class EventText {
  constructor(onId, onEvent) {
    this.onId = onId;
    this.onEvent = onEvent;
    this.rest = "";
    this.#begin();
  }

  take(piece) {
    const lines = (this.rest + piece).split("\n");
    this.rest = lines.pop();
    for (const line of lines) this.#line(line.endsWith("\r") ? line.slice(0, -1) : line);
  }

  #begin() {
    this.kind = "message";
    this.data = [];
    this.id = null;
  }

  #line(line) {
    if (line === "") {
      const { kind, data, id } = this;
      this.#begin();
      if (id !== null) this.onId(id);
      if (data.length) this.onEvent(kind, JSON.parse(data.join("\n")));
      return;
    }
    const colon = line.indexOf(":");
    if (colon === 0) return;
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (name === "event") this.kind = value;
    else if (name === "data") this.data.push(value);
    else if (name === "id") this.id = value;
  }
}
