"""What the page costs: bytes over the wire, when it is there, and whether it keeps up with 60 updates a second.

`python -m bench.page [seconds]` opens it in headless Chromium, with a day of 1-minute bars of 20 markets behind it,
served by the stand-in for the API that the tests use. Then 60 bars a second come in, and three verdicts.
"""

import asyncio
import sys
import time
from typing import Any

from playwright.async_api import Browser, CDPSession, Page

from bench.ground import percentile
from bench.table import say
from tests.page.browser import ABSENT, CHROMIUM, chromium, evaluates
from tests.page.stand_in import StandIn, signal

SYMBOLS = tuple(f"SIM{number:02}" for number in range(20))
BARS = 1440
SIGNALS = 40
UPDATES_A_SECOND = 60
VERDICT_EVERY = 20
MOST_BYTES = 1_600_000
FIRST_PAINT_MS = 1000
# Run before the page: notes when candles are there first, when all markets are, and each frame.
WATCH = """
window.watched = {frames: [], waits: [], pending: []};
const look = () => {
  const {watched} = window;
  const box = document.querySelector(".chart-box");
  if (!watched.candles && box?.dataset.state === "there") watched.candles = performance.now();
  const last = [...document.querySelectorAll(".market-last")].filter((one) => one.textContent).length;
  if (!watched.markets && last === %d) watched.markets = performance.now();
  watched.frames.push(performance.now());
  requestAnimationFrame(look);
};
requestAnimationFrame(look);
"""
# Run before the updates: notes how long each waits from being sent to being drawn.
TIME = """() => {
  const {watched, tradent} = window;
  watched.frames = [];
  const [take, draw] = [tradent.take.bind(tradent), tradent.draw.bind(tradent)];
  tradent.take = (kind, data) => { take(kind, data); if (data.sent_ms) watched.pending.push(data.sent_ms); };
  tradent.draw = () => {
    draw();
    for (const sent of watched.pending.splice(0)) watched.waits.push(Date.now() - sent);
  };
}"""


async def loaded(page: Page, url: str) -> tuple[int, dict[str, Any]]:
    """Open the page and wait for all markets: bytes over the wire but for the API, and when what was there, ms."""
    session = await page.context.new_cdp_session(page)
    await session.send("Network.enable")
    api: set[str] = set()
    sizes: dict[str, int] = {}
    session.on(
        "Network.requestWillBeSent", lambda event: "/api/" in event["request"]["url"] and api.add(event["requestId"])
    )
    session.on("Network.loadingFinished", lambda event: sizes.update({event["requestId"]: event["encodedDataLength"]}))
    await page.goto(url)
    await evaluates(page, "window.watched.markets > 0")
    times = await page.evaluate(
        "({...window.watched, paint: performance.getEntriesByName('first-contentful-paint')[0].startTime})"
    )
    await session.detach()
    return sum(size for name, size in sizes.items() if name not in api), times


async def busy_s(session: CDPSession) -> float:
    """What the page's main thread has worked so far."""
    metrics = (await session.send("Performance.getMetrics"))["metrics"]
    return float(next(each["value"] for each in metrics if each["name"] == "TaskDuration"))


async def updates(page: Page, daemon: StandIn, seconds: float) -> bool:
    """Send them, and print how the page bore it; whether it kept up."""
    session = await page.context.new_cdp_session(page)
    await session.send("Performance.enable")
    await page.evaluate(TIME)
    before, begun = await busy_s(session), time.monotonic()
    for number in range(int(UPDATES_A_SECOND * seconds)):
        await asyncio.sleep(max(0.0, begun + number / UPDATES_A_SECOND - time.monotonic()))
        symbol = SYMBOLS[number % 4 * 5]
        daemon.add_bar(symbol, sent_ms=time.time() * 1000)
        if number % VERDICT_EVERY == 0:
            daemon.add_verdict(signal(symbol, len(daemon.bars[symbol]) - 1, 1 + number // VERDICT_EVERY % 5))
    sent = int(UPDATES_A_SECOND * seconds)
    await evaluates(page, f"window.watched.waits.length >= {sent}")
    took_s = time.monotonic() - begun
    busy = (await busy_s(session) - before) / took_s
    watched = await page.evaluate("window.watched")
    gaps = [after - first for first, after in zip(watched["frames"], watched["frames"][1:], strict=False)]
    share = "of a core, the page's main thread"
    met = [took_s <= seconds + 1, busy < 1]
    say(f"{sent} updates in {seconds:.0f} s, all drawn after", f"{took_s:.1f} s", f"≤ {seconds + 1:.0f} s", met[0])
    say("an update, sent to drawn", _spread(watched["waits"], "ms"))
    say("between two frames", _spread(gaps, "ms"))
    say("busy meanwhile", f"{100 * busy:.0f} % {share}", "< 100 %", met[1])
    return all(met)


def _spread(values: list[float], unit: str) -> str:
    return f"p50 {percentile(values, 50):.0f}, p99 {percentile(values, 99):.0f}, most {max(values):.0f} {unit}"


async def measure(browser: Browser, seconds: float) -> bool:
    """Everything there is to print; whether what is wanted was reached."""
    async with StandIn(SYMBOLS, BARS) as daemon:
        daemon.signals = [
            signal(symbol, index, 1 + index % 5) for symbol in SYMBOLS for index in range(BARS - 1, 0, -BARS // SIGNALS)
        ]
        context = await browser.new_context(viewport={"width": 1440, "height": 900})
        page = await context.new_page()
        await page.add_init_script(WATCH % len(SYMBOLS))
        size, times = await loaded(page, daemon.url)
        again, times_again = await loaded(page, daemon.url)
        met = [size <= MOST_BYTES, times["paint"] <= FIRST_PAINT_MS]
        say("the page, gzipped, over the wire", f"{size / 1000:.1f} kB", "≤ 1 600 kB", met[0])
        say("the same when it is cached", f"{again / 1000:.1f} kB")
        say("first paint", f"{times['paint']:.0f} ms", f"≤ {FIRST_PAINT_MS} ms", met[1])
        say("first paint, cached", f"{times_again['paint']:.0f} ms")
        say("candles of the first market", f"{times['candles']:.0f} ms, cached {times_again['candles']:.0f} ms")
        say(
            f"a day of all {len(SYMBOLS)} markets", f"{times['markets']:.0f} ms, cached {times_again['markets']:.0f} ms"
        )
        met.append(await updates(page, daemon, seconds))
        await context.close()
    return all(met)


async def run(seconds: float) -> int:
    """The exit status."""
    if CHROMIUM is None:
        sys.stdout.write(f"not measured: {ABSENT}\n")
        return 0
    async with chromium() as browser:
        return 0 if await measure(browser, seconds) else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(run(float(sys.argv[1]) if len(sys.argv) > 1 else 20.0)))
