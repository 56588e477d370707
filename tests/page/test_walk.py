"""What a person meets who uses the page for a day: windows, tokens, outages, many markets, odd texts."""

from collections.abc import AsyncIterator
from itertools import combinations

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, expect

from tests.page.browser import ABSENT, CHROMIUM, chromium, evaluates, opened
from tests.page.stand_in import StandIn, signal

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.skipif(CHROMIUM is None, reason=ABSENT)]

PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}
BOXES = "window.tradent.chart.boxes.map(({ x, y, size }) => [x, y, size])"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def daemon() -> AsyncIterator[StandIn]:
    async with StandIn() as running:
        yield running


async def live(page: Page) -> None:
    await expect(page.locator("#link")).to_have_attribute("data-state", "live")
    await expect(page.locator(".chart-box")).to_have_attribute("data-state", "there")


async def test_the_reasons_of_health_fit_a_phone(browser: Browser, daemon: StandIn) -> None:
    async with opened(browser, daemon.url, **PHONE) as (page, _):
        await page.get_by_role("button", name="Ready").tap()
        box = await page.locator("#reasons").bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 360
        details = await page.locator("#reasons li .quiet").evaluate_all("all => all.map((it) => it.clientHeight)")
        assert max(details) < 30, "one line each"


async def test_in_forced_colours_the_chosen_market_and_the_gauges_are_seen(browser: Browser, daemon: StandIn) -> None:
    async with opened(browser, daemon.url, forced_colors="active") as (page, _):
        await live(page)
        border = "all => all.map((it) => getComputedStyle(it).borderStyle)"
        chosen, other, *_ = await page.locator("#market-list button").evaluate_all(border)
        assert chosen != other
        assert await page.locator("#p-quota .gauge").first.evaluate("(it) => getComputedStyle(it).borderWidth") == "1px"
        ink = "getComputedStyle(document.querySelector('#chart')).getPropertyValue('--ink').trim()"
        assert await page.evaluate(ink) == "CanvasText"


async def test_signals_at_the_highest_and_lowest_bar_do_not_cover_each_other(browser: Browser, daemon: StandIn) -> None:
    bars = daemon.bars["SIMBTC"][-60:]
    lowest = 180 + min(range(60), key=lambda at: bars[at]["low"])
    highest = 180 + max(range(60), key=lambda at: bars[at]["high"])
    daemon.signals += [
        signal("SIMBTC", index, 4, side=side, signal=f"sig-{side}-{number}")
        for index, side in ((lowest, "long"), (highest, "short"))
        for number in range(4)
    ]
    async with opened(browser, daemon.url) as (page, _):
        await live(page)
        boxes = await evaluates(page, f"window.tradent.chart.boxes.length === 8 && {BOXES}")
        height = await page.evaluate("window.tradent.chart.plotHeight")
        assert all(size / 2 <= y <= height - size / 2 for _, y, size in boxes)
        assert all(abs(a[0] - b[0]) >= a[2] or abs(a[1] - b[1]) >= a[2] for a, b in combinations(boxes, 2))


async def test_figures_do_not_move_the_chart(browser: Browser, daemon: StandIn) -> None:
    chart = "document.querySelector('.chart-box').clientHeight"
    daemon.broken = "the database does not answer yet; wait"
    async with opened(browser, daemon.url) as (page, _):
        await expect(page.locator("#p-ratings")).to_contain_text("wait")
        before = await page.evaluate(chart)
        daemon.broken = None
        await page.locator("#chart-note").get_by_role("button", name="Try again").click()
        await live(page)
        await expect(page.locator("#p-ratings")).to_contain_text("no signal rated yet")
        await page.locator("#chart").hover(position={"x": 300, "y": 100})
        await expect(page.locator("#readout")).to_contain_text("O ")
        assert await page.evaluate(chart) == before


async def test_who_closes_the_question_for_a_token_finds_it_again(browser: Browser, daemon: StandIn) -> None:
    daemon.token = "read-me"
    async with opened(browser, daemon.url) as (page, _):
        gate = page.get_by_role("dialog", name="This daemon asks for a token")
        await expect(gate).to_be_visible()
        for _ in range(3):
            await page.keyboard.press("Escape")
        await expect(gate).to_be_hidden()
        await page.get_by_role("button", name="Enter a token").click()
        await gate.get_by_label("Token").fill("read-me")
        await page.keyboard.press("Enter")
        await live(page)
        await expect(page.locator("#banner")).to_be_hidden()


async def test_a_token_that_no_header_can_carry_is_not_tried(browser: Browser, daemon: StandIn) -> None:
    daemon.token = "read-me"
    async with opened(browser, daemon.url) as (page, _):
        gate = page.get_by_role("dialog", name="This daemon asks for a token")
        await gate.get_by_label("Token").fill("tökén→")
        await page.keyboard.press("Enter")
        await expect(gate.get_by_label("Token")).to_have_value("tökén→")
        assert await page.evaluate("sessionStorage.length") == 0


async def test_a_wrong_admin_token_does_not_cost_the_one_that_reads(browser: Browser, daemon: StandIn) -> None:
    daemon.token, daemon.admin = "read-me", "rule-me"
    async with opened(browser, daemon.url) as (page, _):
        await page.get_by_role("textbox", name="Token").fill("read-me")
        await page.keyboard.press("Enter")
        await live(page)
        await page.get_by_role("button", name="Pause rating").click()
        stronger = page.get_by_role("dialog", name="This needs the admin token")
        await stronger.get_by_label("Token").fill("wrong")
        await page.keyboard.press("Enter")
        await expect(stronger).to_contain_text("a token is needed")
        await page.keyboard.press("Escape")
        await live(page)
        assert await page.evaluate("sessionStorage.getItem('tradent-token')") == "read-me"


async def test_a_browser_that_keeps_nothing_shows_everything(browser: Browser, daemon: StandIn) -> None:
    daemon.token = "read-me"
    async with opened(browser, daemon.url, before=NO_STORAGE) as (page, _):
        await page.get_by_role("textbox", name="Token").fill("read-me")
        await page.keyboard.press("Enter")
        await live(page)
        await page.keyboard.press("d")
        await expect(page.get_by_role("button", name="Colours: light")).to_be_visible()
        await page.keyboard.press("]")
        await expect(page.locator("#symbol")).to_have_text("SIMETH")
