// The figures: ratings, queue, quota, latency, cost. Lengths are set by width attributes of meters, never by inline style.

import { $, fill, h, note } from "./dom.js";
import { count, duration, percent, usd } from "./format.js";

// From this share of the budget on it is said that little is left.
const LOW = 0.9;

/** A bar of a share between 0 and 1, with `text` for those who do not see it. */
function gauge(share, text, kind = "") {
  const bar = h("i", { class: kind });
  bar.style.width = `${Math.max(0, Math.min(1, share || 0)) * 100}%`;
  return h("span", { class: "gauge", role: "img", "aria-label": text }, bar);
}

const fact = (name, value, more = null) => h("div", { class: "fact" }, h("dt", {}, name), h("dd", {}, value, more));

export function drawRatings(stats) {
  const ratings = [5, 4, 3, 2, 1].map((rating) => [rating, Number(stats.ratings?.[rating] ?? 0)]);
  const total = ratings.reduce((sum, [, number]) => sum + number, 0);
  const most = Math.max(1, ...ratings.map(([, number]) => number));
  const { completed = 0, failed = 0, expired = 0, skipped = 0 } = stats.statuses ?? {};
  const { allow = 0, deny = 0, review = 0 } = stats.decisions ?? {};
  const decided = { allowed: allow, "to review": review, denied: deny };
  const rest = { "without a rating": Math.max(0, completed - total), failed, expired, skipped };
  fill(
    $("p-ratings"),
    h(
      "ul",
      { class: "distribution" },
      ratings.map(([rating, number]) =>
        h(
          "li",
          {},
          h("b", { class: `chip r${rating}` }, rating),
          gauge(number / most, `${number} rated ${rating}`, `r${rating}`),
          h("span", { class: "number" }, count(number)),
          h("span", { class: "quiet number" }, total ? percent(number / total) : ""),
        ),
      ),
    ),
    counted(decided) ? h("p", { class: "quiet" }, counted(decided)) : null,
    h("p", { class: "quiet" }, counted(rest) || (total ? "every signal rated" : "no signal rated yet")),
  );
}

const counted = (numbers) =>
  Object.entries(numbers)
    .filter(([, number]) => number > 0)
    .map(([name, number]) => `${count(number)} ${name}`)
    .join(" · ");

export function drawQueue(queue, recorded) {
  const { pending = 0, processing = 0 } = queue ?? {};
  fill(
    $("p-queue"),
    h("p", { class: "big" }, count(pending), h("span", { class: "quiet" }, pending === 1 ? " waits" : " wait")),
    h(
      "dl",
      {},
      fact("in work", count(processing)),
      Object.entries(recorded ?? {})
        .filter(([name]) => ["failed", "expired"].includes(name))
        .map(([name, number]) => fact(`${name}, 24 h`, count(number))),
    ),
  );
}

/** Each backend's requests and tokens of the last minute against its limits; 0 is no limit. */
export function drawQuota(limits) {
  const backends = Object.entries(limits ?? {});
  if (!backends.length) {
    fill($("p-quota"), note("No model is asked", "rating is off, or has not begun"));
    return;
  }
  fill(
    $("p-quota"),
    h(
      "ul",
      { class: "quota" },
      backends.map(([name, use]) => {
        const lines = [
          ["requests", use.requests, use.requests_limit],
          ["tokens", use.tokens, use.tokens_limit],
        ];
        return h(
          "li",
          {},
          h("b", {}, name),
          use.blocked_s > 0 ? h("span", { class: "warn" }, ` blocked ${duration(use.blocked_s * 1000)}`) : null,
          lines
            .filter(([what, , limit]) => limit || what === "requests")
            .map(([what, used, limit]) =>
              h(
                "div",
                { class: "use" },
                h(
                  "span",
                  {},
                  limit ? `${count(used)} / ${count(limit)}` : count(used),
                  h("span", { class: "quiet" }, ` ${what}${limit ? "" : ", no limit"}`),
                ),
                limit ? gauge(used / limit, `${used} of ${limit} ${what}`, used >= limit ? "full" : "") : null,
              ),
            ),
          use.waiting ? h("span", { class: "quiet" }, `${count(use.waiting)} calls wait`) : null,
        );
      }),
    ),
  );
}

export function drawLatency(stats) {
  const { p50, p95, p99 } = stats.latency_ms ?? {};
  fill(
    $("p-latency"),
    h("p", { class: "big" }, duration(p50), h("span", { class: "quiet" }, " median")),
    h("dl", {}, fact("p95", duration(p95)), fact("p99", duration(p99))),
  );
}

export function drawCost(costs, live) {
  const today = live?.today_usd ?? costs?.today_usd ?? null;
  const budget = live?.budget_usd ?? costs?.budget_usd ?? null;
  const used = live?.budget_used_usd ?? today;
  const unknown = live?.today_unknown ?? 0;
  const days = [...(costs?.days ?? [])].sort((a, b) => (a.day < b.day ? -1 : 1)).slice(-14);
  const most = Math.max(...days.map((one) => Number(one.usd) || 0), 1e-12);
  const columns = h(
    "ol",
    { class: "days", "aria-label": "Cost of the last days" },
    days.map((one) => {
      const column = h("i", { "aria-hidden": true });
      column.style.height = `${Math.max(4, ((Number(one.usd) || 0) / most) * 100)}%`;
      return h(
        "li",
        { title: `${one.day}: ${usd(one.usd)}, ${count(one.calls)} calls` },
        column,
        h("span", { class: "unseen" }, `${one.day}: ${usd(one.usd)}`),
      );
    }),
  );
  fill(
    $("p-cost"),
    h(
      "p",
      { class: "big" },
      today === null ? "unknown" : usd(today),
      budget === null
        ? h("span", { class: "quiet" }, " no budget")
        : h("span", { class: "quiet" }, ` of ${usd(budget)}`),
    ),
    budget === null ? null : gauge(used / budget, `${usd(used)} of ${usd(budget)}`, used >= LOW * budget ? "full" : ""),
    budget !== null && used >= LOW * budget
      ? h(
          "p",
          { class: "warn" },
          budget > 0 ? `${Math.min(100, Math.floor((100 * used) / budget))} % is used up` : "used up",
        )
      : null,
    unknown ? h("p", { class: "quiet" }, `${count(unknown)} answers without a known price`) : null,
    days.length > 1 ? columns : null,
  );
}

/** A part that could not be read says so in its place, and leaves the others alone. */
export function drawTrouble(ids, why) {
  for (const id of ids) fill($(id), note("Not to be had now", why));
}
