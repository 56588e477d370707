"""The page before the real daemon: the simulated market, PostgreSQL, the rules, and a daemon that is killed."""

import re
import signal
from pathlib import Path

import aiohttp
import pytest
from playwright.async_api import expect

from service.daemon import Role
from tests.daemon import Daemon
from tests.page.browser import ABSENT, CHROMIUM, chromium, evaluates, opened
from tests.ports import kept_port
from tests.running import running_daemon, url_of
from tests.servers import Answer, LlamaServer

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason=ABSENT)


async def test_it_shows_what_the_daemon_does_and_comes_back_after_its_death(tmp_path: Path, database: str) -> None:
    feed = {"type": "simulated", "symbols": ["SIMBTC", "SIMETH"], "timeframe": "1s", "history": 300}
    with kept_port() as port:
        program = Daemon(tmp_path, {
            "database": {"url": database}, "service": {"port": port}, "trading": {"feed": feed},
        })  # fmt: skip
        await see_it_die_and_come_back(program, port)


async def see_it_die_and_come_back(program: Daemon, port: int) -> None:
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


async def test_a_retry_is_seen_on_the_page_of_another_process_before_there_is_a_verdict(
    tmp_path: Path, database: str
) -> None:
    """It may take long: here ratings are paused."""
    refused = Answer({"error": {"code": 400, "message": "no", "type": "invalid_request_error"}}, status=400)
    async with LlamaServer(default=lambda body: refused) as server, chromium() as browser:
        llm = {"model": "llama_cpp/local", "max_retries": 1, "backends": {"llama_cpp": {"base_url": server.base_url}}}
        worker = Daemon(tmp_path, {"database": {"url": database}, "llm": llm})
        async with running_daemon(database, Role.TRADER) as trader, worker.start("--role", "worker") as rates:
            await rates.said("is answered at http")
            there = rates.log.partition("is answered at ")[2].split()[0]
            async with opened(browser, url_of(trader, "/")) as (page, _):
                await page.locator("#feed button.failed").first.click()
                await expect(page.locator("#detail")).to_contain_text("answered 400")
                async with aiohttp.ClientSession() as session:
                    signal_id = (await evaluates(page, "location.hash")).removeprefix("#")
                    for act in ("control/pause", f"tasks/{signal_id}/retry"):
                        async with session.post(f"{there}/api/v1/{act}") as answer:
                            assert answer.status == 200
                row = page.locator(f"#feed [data-signal='{signal_id}']")
                await expect(row).to_contain_text("Waits for its rating.")
                await expect(page.locator("#detail")).to_contain_text("waits for its rating")
