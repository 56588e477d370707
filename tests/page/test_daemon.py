"""The page before the real daemon: the simulated market, PostgreSQL, the rules, and a daemon that is killed."""

import re
import signal
import socket
from pathlib import Path

import pytest
from playwright.async_api import expect

from tests.daemon import Daemon
from tests.page.browser import ABSENT, CHROMIUM, chromium, opened

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason=ABSENT)


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


async def test_it_shows_what_the_daemon_does_and_comes_back_after_its_death(tmp_path: Path, database: str) -> None:
    port = free_port()
    feed = {"type": "simulated", "symbols": ["SIMBTC", "SIMETH"], "timeframe": "1s", "history": 300}
    program = Daemon(tmp_path, {
        "database": {"url": database}, "service": {"port": port}, "trading": {"feed": feed},
    })  # fmt: skip
    async with chromium() as browser, program.start() as running:
        await running.said("is answered at")
        async with opened(browser, f"http://127.0.0.1:{port}/") as (page, _):
            await expect(page.locator("#simulated")).to_be_visible()
            await expect(page.locator("#symbol")).to_have_text("SIMBTC")
            await expect(page.locator("#health")).to_have_text("Ready")
            chart = page.locator("#chart")
            await expect(chart).to_have_attribute("aria-label", re.compile(r"\d{3} candles, \d+ signals"))
            first = await chart.get_attribute("aria-label")
            assert first is not None
            await expect(chart).not_to_have_attribute("aria-label", first)
            rated = page.locator("#feed button.rated").first
            await expect(rated).to_contain_text("rules/baseline")
            await expect(page.locator("#p-ratings")).to_contain_text("%")

            await rated.click()
            await expect(page.locator("#detail")).to_contain_text("Raw reply")
            await expect(page.locator("#detail .facts").last).to_contain_text("rsi")
            await page.keyboard.press("Escape")
            await page.get_by_role("button", name="Pause rating").click()
            await expect(page.locator("#banner")).to_contain_text("Rating is paused")
            await page.get_by_role("button", name="Resume rating").click()
            await expect(page.locator("#banner")).to_be_hidden()

            running.send(signal.SIGKILL)
            await running.ended()
            await expect(page.locator("#banner")).to_contain_text("No connection since")
            async with program.start() as again:
                await again.said("is answered at")
                await expect(page.locator("#health")).to_have_text("Ready")
                await expect(page.locator("#banner")).to_be_hidden()
                shown = await page.locator("#feed button").evaluate_all("all => all.map((it) => it.dataset.signal)")
                assert len(shown) == len(set(shown)) > 0
