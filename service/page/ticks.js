// Where an axis has its marks.

/** Round values of about `wanted` steps between two prices, and the decimals they need. */
export function priceTicks(low, high, wanted) {
  const rough = (high - low) / Math.max(1, wanted);
  const size = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((part) => part * size).find((value) => value >= rough) ?? rough;
  if (!(step > 0) || !Number.isFinite(step)) return { ticks: [], decimals: 2 };
  const decimals = Math.max(
    0,
    Math.min(10, Math.ceil(-Math.log10(step) - 1e-9) + (/^2\.5/.test(String(step / size)) ? 1 : 0)),
  );
  const ticks = [];
  for (let at = Math.ceil(low / step) * step; at <= high; at += step) ticks.push(at);
  return { ticks, decimals };
}

const MINUTE = 60000;
const STEPS = [
  1000,
  5000,
  15000,
  30000,
  MINUTE,
  2 * MINUTE,
  5 * MINUTE,
  10 * MINUTE,
  15 * MINUTE,
  30 * MINUTE,
  60 * MINUTE,
  120 * MINUTE,
  240 * MINUTE,
  360 * MINUTE,
  720 * MINUTE,
  1440 * MINUTE,
  2880 * MINUTE,
  10080 * MINUTE,
];

/** The shortest step of time that leaves each mark its room; `ms` is what the whole axis shows. */
export function timeStep(ms, wanted) {
  return STEPS.find((step) => ms / step <= wanted) ?? 43200 * MINUTE;
}
