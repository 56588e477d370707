// Asking the daemon, with the token where one is needed.

import { keep, kept } from "./storage.js";

const KEY = "tradent-token";

/** The daemon said no: `status` is HTTP's, the message what it said. */
export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export class Api {
  constructor() {
    this.token = kept("sessionStorage", KEY);
    this.onUnauthorised = () => {};
  }

  /** Keep a token for as long as this tab is open; "" forgets it. */
  keep(token) {
    this.token = token;
    keep("sessionStorage", KEY, token);
  }

  headers(more = {}, token = this.token) {
    return token ? { ...more, Authorization: `Bearer ${token}` } : more;
  }

  /** JSON of an address under /api/v1. Raises Refused, or TypeError where nobody answers. */
  async get(path, params = {}) {
    const query = new URLSearchParams(
      Object.entries(params).filter(([, value]) => value !== null && value !== undefined),
    );
    const text = query.toString();
    return this.#ask(`api/v1/${path}${text ? `?${text}` : ""}`, {
      headers: this.headers({ Accept: "application/json" }),
    });
  }

  /** Do something; with a `token` that is tried before it is kept. */
  async post(path, body = {}, token = this.token) {
    const headers = this.headers({ "Content-Type": "application/json", Accept: "application/json" }, token);
    return this.#ask(`api/v1/${path}`, { method: "POST", headers, body: JSON.stringify(body) }, token);
  }

  async #ask(url, options, asked = this.token) {
    const answer = await fetch(url, { ...options, cache: "no-store", signal: AbortSignal.timeout(20000) });
    if (answer.ok) return answer.status === 204 ? null : answer.json();
    const said = await saidBy(answer);
    const noAccess = answer.status === 401 || (answer.status === 403 && !options.method);
    if (noAccess && asked === this.token) this.onUnauthorised(said);
    throw new Refused(answer.status, said);
  }
}

/** What an error answer says, else its status in words. */
export async function saidBy(answer) {
  try {
    const { error } = await answer.json();
    if (typeof error === "string" && error) return error;
  } catch {
    // not JSON: the status is all there is
  }
  return `the daemon answered ${answer.status} ${answer.statusText}`.trim();
}
