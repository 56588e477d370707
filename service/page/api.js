// Asking the daemon, with the token where one is needed.

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
    this.token = sessionStorage.getItem(KEY) ?? "";
    this.onUnauthorised = () => {};
  }

  /** Keep a token for as long as this tab is open; "" forgets it. */
  keep(token) {
    this.token = token;
    if (token) sessionStorage.setItem(KEY, token);
    else sessionStorage.removeItem(KEY);
  }

  headers(more = {}) {
    return this.token ? { ...more, Authorization: `Bearer ${this.token}` } : more;
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

  async post(path, body = {}) {
    const headers = this.headers({ "Content-Type": "application/json", Accept: "application/json" });
    return this.#ask(`api/v1/${path}`, { method: "POST", headers, body: JSON.stringify(body) });
  }

  async #ask(url, options) {
    const asked = this.token;
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
