"""What a person meets who uses the page for a day: windows, tokens, outages, many markets, odd texts."""

import asyncio
import re
from itertools import combinations

import pytest
from playwright.async_api import Browser, Route, expect

from tests.page.browser import ABSENT, CHROMIUM, evaluates, live, opened
from tests.page.stand_in import StandIn, bar, signal

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.skipif(CHROMIUM is None, reason=ABSENT)]

PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}
NO_STORAGE = """
for (const area of ["localStorage", "sessionStorage"]) {
  Object.defineProperty(window, area, { get() { throw new DOMException("not allowed", "SecurityError"); } });
}
"""
BOXES = "window.tradent.chart.boxes.map(({ x, y, size }) => [x, y, size])"


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
        await expect(page.locator("#p-quota .gauge").first).to_have_css("border-width", "1px")
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


async def test_what_is_shown_from_before_an_outage_can_still_be_read(browser: Browser, daemon: StandIn) -> None:
    async with opened(browser, daemon.url) as (page, _):
        await live(page)
        await daemon.stop()
        await expect(page.locator("#banner")).to_contain_text("What is shown is from before")
        faded = """[...document.querySelectorAll("body, main, .panel, #feed")]
          .map((it) => Number(getComputedStyle(it).opacity))"""
        assert min(await page.evaluate(faded)) == 1
        assert await page.locator(".panel").first.evaluate("(it) => getComputedStyle(it).borderStyle") == "dashed"


async def test_who_wakes_the_computer_need_not_wait_for_a_dead_connection(browser: Browser, daemon: StandIn) -> None:
    """One that has spoken just now is left alone; one that has not for an hour is given up: the outage began then."""
    wake = """() => {
      const { live, head } = window.tradent;
      live.heardAt = Date.now();
      dispatchEvent(new Event("online"));
      const leftAlone = !live.hurry;
      window.links = [];
      head.setLink = (link) => window.links.push({ ...link });
      live.heardAt -= 3600000;
      const slept = live.heardAt;
      dispatchEvent(new Event("online"));
      return [leftAlone, slept];
    }"""
    async with opened(browser, daemon.url) as (page, _):
        await live(page)
        left_alone, slept = await page.evaluate(wake)
        links = await evaluates(page, "window.links.some((link) => link.at === 'live') && window.links")
        assert left_alone
        assert (links[0]["at"], links[0]["since"]) == ("lost", slept)


async def test_nothing_moves_when_the_markets_come(browser: Browser, daemon: StandIn) -> None:
    asked, answer = asyncio.Event(), asyncio.Event()

    async def hold(route: Route) -> None:
        asked.set()
        await answer.wait()
        await route.continue_()

    top = "document.querySelector('.chart-box').getBoundingClientRect().top"
    for options in (PHONE, {"viewport": {"width": 768, "height": 1024}}):
        asked.clear()
        answer.clear()
        async with opened(browser, daemon.url, **options) as (page, _):
            await page.route("**/api/v1/streams", hold)
            await page.reload()
            await asked.wait()
            await expect(page.locator("#health")).to_have_text("Ready")
            before = await page.evaluate(top)
            answer.set()
            await live(page)
            assert abs(await page.evaluate(top) - before) < 2, options


async def test_older_verdicts_come_in_order_until_there_are_no_more(browser: Browser, daemon: StandIn) -> None:
    """Those of the market that is shown are known at once; they stand in the list when it has come to them."""
    daemon.signals = [signal("EUR/USD", index, 4, signal=f"sig-new-{index}") for index in range(20, 230)]
    daemon.signals += [signal("GBP/USD", index, 4, signal=f"sig-old-{index}") for index in range(5, 20)]
    daemon.signals += [signal("SIMBTC", index, 4, signal=f"sig-shown-{index}") for index in range(5, 20)]
    async with opened(browser, daemon.url) as (page, _):
        await expect(page.locator("#chart")).to_have_attribute("aria-label", re.compile("15 signals"))
        await expect(page.locator("#feed li")).to_have_count(40)
        for count in (80, 120, 160, 200, 240):
            await page.get_by_role("button", name="Show more").click()
            await expect(page.locator("#feed li")).to_have_count(count)
        await expect(page.get_by_role("button", name="Show more")).to_be_hidden()
        closes = await page.locator("#feed time").evaluate_all("all => all.map((it) => it.dateTime)")
        assert closes == sorted(closes, reverse=True)


async def test_each_of_many_markets_has_its_price_once_it_is_seen(browser: Browser) -> None:
    symbols = tuple(f"SIM{number:02}" for number in range(45))
    async with StandIn(symbols, 5) as daemon, opened(browser, daemon.url) as (page, _):
        last = page.locator("#market-list li").last
        await expect(last).to_contain_text("SIM44")
        await last.scroll_into_view_if_needed()
        await expect(last.locator(".market-last")).to_have_text(f"{daemon.bars['SIM44'][-1]['close']:.2f}")


async def test_what_comes_in_does_not_hide_that_what_was_before_could_not_be_read(
    browser: Browser, daemon: StandIn
) -> None:
    daemon.broken = "PostgreSQL does not answer now; ask again in a while"
    async with opened(browser, daemon.url) as (page, _):
        await expect(page.locator("#link")).to_have_attribute("data-state", "live")
        await expect(page.locator("#feed-note")).to_contain_text("could not be read")
        daemon.publish("bar", bar("SIMBTC", 240))
        daemon.publish("signal", signal("SIMBTC", 240, None))
        await expect(page.locator("#feed li")).to_have_count(1)
        await expect(page.locator("#feed-note")).to_contain_text("Older verdicts could not be read")
        await expect(page.locator("#chart-note")).to_contain_text("Earlier bars could not be read")
        daemon.broken = None
        await page.locator("#chart-note").get_by_role("button", name="Try again").click()
        await live(page)


async def test_text_from_right_to_left_reads_so_and_turns_nothing_else(browser: Browser, daemon: StandIn) -> None:
    item = signal("SIMBTC", 220, 4, rationale="مرحبا: 12.5% up", strategy="\u202egnp.exe")
    daemon.signals.append(item)
    async with opened(browser, daemon.url) as (page, _):
        text = page.locator("#feed .row-text")
        await expect(text).to_have_css("direction", "rtl")
        await page.locator("#feed button").click()
        await expect(page.locator("#detail .rationale")).to_have_css("direction", "rtl")
        apart = page.locator("#detail header p bdi")
        await expect(apart).to_have_text(["\u202egnp.exe", "1m", "2026-11-29 03:41:00 UTC"])


async def test_a_signal_that_does_not_exist_is_not_said_to_wait(browser: Browser, daemon: StandIn) -> None:
    async with opened(browser, daemon.url) as (page, _):
        await page.evaluate("location.hash = 'sig-00000000'")
        await expect(page.locator("#detail")).to_contain_text("there is no such signal")
        await expect(page.locator("#detail .chip")).to_have_count(0)


async def test_an_action_without_a_rating_is_no_abstention(browser: Browser, daemon: StandIn) -> None:
    done = {"status": "completed", "finished_at": "2026-11-29T04:00:00Z"}
    daemon.signals += [
        signal("SIMBTC", 220, None, action="enter_long", rationale="It breaks out.", **done),
        signal("SIMBTC", 221, None, abstention="the reply states neither an action nor a rating", **done),
    ]
    async with opened(browser, daemon.url) as (page, _):
        said = page.locator("#feed .chip")
        await expect(said).to_have_count(2)
        assert sorted([await chip.get_attribute("aria-label") or "" for chip in await said.all()]) == [
            "answered without a rating", "no rating could be given",
        ]  # fmt: skip


async def test_the_focus_comes_back_to_a_row_whose_verdict_came_while_it_was_open(
    browser: Browser, daemon: StandIn
) -> None:
    waiting = signal("SIMBTC", 220, None)
    daemon.signals.append(waiting)
    async with opened(browser, daemon.url) as (page, _):
        row = page.locator("#feed button")
        await row.focus()
        await page.keyboard.press("Enter")
        await expect(page.locator("#detail")).to_contain_text("Waits for its rating.")
        daemon.add_verdict(signal("SIMBTC", 220, 5))
        await expect(page.locator("#detail")).to_contain_text("5 of 5")
        await page.keyboard.press("Escape")
        await expect(row).to_be_focused()


async def test_what_was_today_has_its_day_once_midnight_has_passed(browser: Browser, daemon: StandIn) -> None:
    async with opened(browser, daemon.url) as (page, _):
        await page.clock.set_fixed_time("2026-11-29T23:59:58Z")
        await live(page)
        daemon.add_verdict(signal("SIMBTC", 220, 5))
        first = page.locator("#feed time").last
        await expect(first).to_have_text("03:41")
        await page.clock.set_fixed_time("2026-11-30T00:00:02Z")
        daemon.add_verdict(signal("SIMBTC", 221, 5))
        await expect(page.locator("#feed li")).to_have_count(2)
        await expect(first).to_have_text("2026-11-29 03:41")


async def test_the_table_can_be_skipped_to(browser: Browser, daemon: StandIn) -> None:
    async with opened(browser, daemon.url) as (page, _):
        await live(page)
        await page.keyboard.press("t")
        await page.get_by_role("link", name="Skip to the chart").focus()
        await page.keyboard.press("Enter")
        await expect(page.locator("#chart-table")).to_be_focused()


async def test_a_snapshot_with_nothing_in_it_says_so(browser: Browser, daemon: StandIn) -> None:
    item = signal("EUR/USD", 220, 4, origin="api")
    daemon.signals.append(item)
    daemon.details[item["signal"]] = {"snapshot": {"indicators": {}, "bars": []}}
    async with opened(browser, daemon.url) as (page, _):
        await page.locator("#feed button").click()
        await expect(page.locator("#detail")).to_contain_text("No bars and no indicators were known at its close.")


async def test_a_budget_that_runs_out_is_said(browser: Browser, daemon: StandIn) -> None:
    async with opened(browser, daemon.url) as (page, _):
        await live(page)
        await expect(page.locator("#p-cost")).to_contain_text("$2.00")
        await expect(page.locator("#p-cost")).not_to_contain_text("used up")
        cost = {"today_usd": 1.95, "today_unknown": 0, "budget_usd": 2.0, "budget_used_usd": 1.99}
        daemon.publish("health", daemon.health() | {"cost": cost})
        await expect(page.locator("#p-cost")).to_contain_text("99 % is used up")
