// Numbers and times as a person reads them. Unknown is "–", never 0. Times are UTC.

export const NONE = "–";
const GROUPED = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });
const known = (value) => value !== null && value !== undefined && value !== "" && Number.isFinite(Number(value));

/** Decimals that show five digits of a price of this size, two at least. */
export function decimalsOf(price) {
  const size = Math.abs(price);
  if (!(size > 0)) return 2;
  return Math.min(10, Math.max(2, 4 - Math.floor(Math.log10(size))));
}

const PRICES = new Map();

export function price(value, decimals = decimalsOf(Number(value))) {
  if (!known(value)) return NONE;
  if (!PRICES.has(decimals)) {
    PRICES.set(
      decimals,
      new Intl.NumberFormat("en-US", { minimumFractionDigits: decimals, maximumFractionDigits: decimals }),
    );
  }
  return PRICES.get(decimals).format(Number(value));
}

const SMALL = new Intl.NumberFormat("en-US", { maximumSignificantDigits: 4 });

/** A volume: four digits of what is below a thousand, as a bar of a dear market may have a small part of one. */
export const amount = (value) => (!known(value) ? NONE : Math.abs(value) < 1000 ? SMALL.format(value) : count(value));

export const count = (value) => (known(value) ? GROUPED.format(Number(value)) : NONE);
export const percent = (part, digits = 0) => (known(part) ? `${(Number(part) * 100).toFixed(digits)} %` : NONE);

export function signed(part) {
  if (!known(part)) return NONE;
  const shown = Math.abs(Number(part) * 100).toFixed(2);
  const sign = shown === "0.00" ? "" : part < 0 ? "−" : "+";
  return `${sign}${shown} %`;
}

export function usd(value) {
  if (!known(value)) return "cost unknown";
  const amount = Number(value);
  if (amount === 0) return "$0";
  if (amount < 0.01) return `$${amount.toFixed(6).replace(/0+$/, "")}`;
  return `$${amount.toFixed(amount < 1 ? 4 : 2)}`;
}

export function duration(ms) {
  if (!known(ms)) return NONE;
  const value = Number(ms);
  if (value < 1) return "< 1 ms";
  if (value < 1000) return `${Math.round(value)} ms`;
  const s = value / 1000;
  if (s < 100) return `${s.toFixed(1)} s`;
  if (s < 5400) return `${Math.round(s / 60)} min`;
  if (s < 129600) return `${Math.round(s / 3600)} h`;
  return `${Math.round(s / 86400)} d`;
}

const two = (number) => String(number).padStart(2, "0");

/** "12:04", or "12:04:31" with seconds. */
export function clock(ms, seconds = false) {
  const time = new Date(ms);
  if (Number.isNaN(time.getTime())) return NONE;
  return `${two(time.getUTCHours())}:${two(time.getUTCMinutes())}${seconds ? `:${two(time.getUTCSeconds())}` : ""}`;
}

export function day(ms) {
  const time = new Date(ms);
  return Number.isNaN(time.getTime())
    ? NONE
    : `${time.getUTCFullYear()}-${two(time.getUTCMonth() + 1)}-${two(time.getUTCDate())}`;
}

/** The time where it is today's, else the day too; with seconds where the bars are shorter than a minute. */
export function moment(ms, seconds = false, now = Date.now()) {
  if (Number.isNaN(ms)) return NONE;
  return day(ms) === day(now) ? clock(ms, seconds) : `${day(ms)} ${clock(ms)}`;
}

const UNITS = { s: 1000, m: 60000, h: 3600000, d: 86400000, w: 604800000 };

/** Milliseconds of "5m". */
export function timeframeMs(timeframe) {
  const found = /^(\d+)([smhdw])$/.exec(timeframe ?? "");
  return found ? Number(found[1]) * UNITS[found[2]] : 60000;
}
