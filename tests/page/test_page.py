"""The page in real headless Chromium, before a stand-in for the daemon's API."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.async_api import Browser, Page, expect

from tests.page.browser import ABSENT, CHROMIUM, evaluates, live, opened, until
from tests.page.stand_in import RATIONALES, StandIn, bar, signal
from tests.sampledata import SHARED

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.skipif(CHROMIUM is None, reason=ABSENT)]

MARKUP = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    '"><svg/onload=alert(1)>',
    "<iframe srcdoc='<script>parent.alert(1)</script>'></iframe>",
    "javascript:alert(1)",
    "<style>*{display:none}</style>",
    "</pre></dialog><a href=javascript:alert(1)>x</a>",
    "{{constructor.constructor('alert(1)')()}}",
    "\u202egnp.exe \x1b[31m\x00 ]]>",
]
HORIZONS = [
    {"bars": 1, "until": "2026-03-02T09:06:00Z", "close": 101.25, "forward_return": 0.01, "mfe": 0.015, "mae": 0.0},
    {"bars": 5, "until": "2026-03-02T09:26:00Z", "close": 99.125, "forward_return": -0.0112, "mfe": None, "mae": None},
]


def hostile() -> Iterator[str]:
    """Texts that a model, or whoever talks to it, may send: our own, and those of public lists where they are."""
    yield from MARKUP
    if SHARED is not None:
        yield from json.loads((SHARED / "hostile" / "blns.json").read_text("utf-8"))
        lines = (SHARED / "hostile" / "prompt_injection.jsonl").read_text("utf-8").splitlines()
        yield from (json.loads(line)["text"] for line in lines)


def row(page: Page, item: dict[str, Any]) -> Any:
    return page.locator(f"#feed [data-signal='{item['signal']}']")


async def test_a_bar_and_a_verdict_appear_as_they_come(browser: Browser, daemon: StandIn) -> None:
    async with opened(browser, daemon.url) as (page, _):
        await live(page)
        before = await page.locator("#last").inner_text()
        added = daemon.add_bar("SIMBTC")
        waiting = signal("SIMBTC", 240, None)
        daemon.publish("signal", waiting)

        await expect(page.locator("#last")).to_have_text(f"{added['close']:.2f}")
        assert before != f"{added['close']:.2f}"
        await expect(row(page, waiting)).to_contain_text("waits")
        daemon.add_verdict(signal("SIMBTC", 240, 5))
        await expect(row(page, waiting).locator(".chip")).to_have_text("5")
        await expect(row(page, waiting)).to_contain_text(RATIONALES[0])
        await expect(page.locator("#said")).to_contain_text("SIMBTC long: rated 5 of 5")
        await expect(page.locator("#chart")).to_have_attribute("aria-label", re.compile("241 candles, 1 signals"))


async def test_a_verdict_is_not_taken_back_by_an_older_event(browser: Browser, daemon: StandIn) -> None:
    async with opened(browser, daemon.url) as (page, _):
        await live(page)
        daemon.add_verdict(signal("SIMBTC", 230, 2))
        daemon.publish("signal", signal("SIMBTC", 230, None))
        last = signal("SIMBTC", 231, None)
        daemon.publish("signal", last)

        await expect(row(page, last)).to_be_visible()
        await expect(row(page, signal("SIMBTC", 230)).locator(".chip")).to_have_text("2")


async def test_what_is_allowed_can_be_shown_alone(browser: Browser, daemon: StandIn) -> None:
    """The figures count all decisions, as they come: they are not asked for again here."""
    allowed = [signal("SIMBTC", 220), signal("SIMBTC", 223, 5)]
    doubted = signal("SIMBTC", 221, 5, decision="review", decision_reasons=["rated by a fallback, rules/baseline"])
    daemon.signals.extend([*allowed, doubted, signal("SIMBTC", 222, 2)])
    async with opened(browser, daemon.url) as (page, _):
        await live(page)
        await expect(page.locator("#p-ratings")).to_contain_text("2 allowed · 1 to review · 1 denied")
        await page.route("**/api/v1/stats*", lambda route: None)
        await page.locator("#least").select_option("Allowed")
        await expect(page.locator("#feed button")).to_have_count(2)
        daemon.add_verdict(signal("SIMBTC", 224))
        await expect(page.locator("#feed button")).to_have_count(3)
        await expect(page.locator("#p-ratings")).to_contain_text("3 allowed")
        told = {"status": "completed", "abstention": "two actions", "decision": "review", "decision_reasons": ["so"]}
        daemon.add_verdict(signal("SIMBTC", 225, None, **told, finished_at="2026-11-29T03:46:00Z"))
        await expect(page.locator("#p-ratings")).to_contain_text("2 to review")
        await page.locator("#least").select_option("0")
        await row(page, doubted).click()
        await expect(page.locator("#detail")).to_contain_text("rated by a fallback, rules/baseline")


async def test_a_signal_that_is_rated_again_waits_again_also_where_it_is_open(
    browser: Browser, daemon: StandIn
) -> None:
    """In list, chart and dialog, without a reload; also where the page was not told before that it had failed."""
    failed = signal("SIMBTC", 235, None, status="failed", error="no key", finished_at="2026-11-29T03:57:00Z")
    daemon.signals.append(failed)
    async with opened(browser, daemon.url) as (page, _):
        await live(page)
        await expect(row(page, failed)).to_contain_text("no key")
        await row(page, failed).click()
        await expect(page.locator("#detail")).to_contain_text("no key")

        waits = signal("SIMBTC", 235, None)
        daemon.signals = [waits]
        daemon.publish("signal", waits | {"again": True})
        await expect(row(page, failed)).to_contain_text("Waits for its rating.")
        await expect(page.locator("#detail")).to_contain_text("waits for its rating")
        await expect(page.locator("#detail")).not_to_contain_text("no key")

        daemon.add_verdict(signal("SIMBTC", 235, 5))
        await expect(row(page, failed).locator(".chip")).to_have_text("5")
        await expect(page.locator("#detail .facts").first).to_contain_text("5 of 5")


async def test_what_was_asked_before_an_event_does_not_take_it_back(browser: Browser, daemon: StandIn) -> None:
    """And what was asked after it is believed, as where the event that said so is gone."""
    failed = signal("SIMBTC", 235, None, status="failed", finished_at="2026-11-29T03:57:00Z")
    waits, rated = signal("SIMBTC", 235, None), signal("SIMBTC", 235, 5)
    put = "([item, asked]) => tradent.market.put(item, asked === null ? null : performance.now() + asked)"
    async with opened(browser, daemon.url) as (page, _):
        await live(page)
        taken = [
            await page.evaluate(put, [item, asked])
            for item, asked in (
                (failed, None), (waits | {"again": True}, None), (failed, -60_000), (rated, None),
                (waits, -60_000), (waits, None), (waits, 1), (failed, 1),
            )
        ]  # fmt: skip
    assert taken == [True, True, False, True, False, False, True, True]


async def test_a_signal_opens_with_its_prompt_reply_cost_decision_and_snapshot(
    browser: Browser, daemon: StandIn
) -> None:
    item = signal("SIMBTC", 235, 4)
    daemon.signals.append(item)
    call = {
        "model": "openrouter/some", "requested_at": "2026-11-29T10:00:00Z", "tokens_in": 812, "tokens_out": 64,
        "prompt": [{"role": "system", "content": "You rate signals."}, {"role": "user", "content": "SIMBTC long"}],
        "reply": '{"rating": 4}', "cost_usd": 0.00021, "latency_ms": 812, "error": None,
    }  # fmt: skip
    daemon.details[item["signal"]] = {
        "calls": [call], "decision": "allow", "decision_reasons": ["rating 4 is enough"],
        "snapshot": {"indicators": {"ema_200": 101.5, "atr": None}, "bars": [bar("SIMBTC", 235)]},
    }  # fmt: skip
    async with opened(browser, daemon.url) as (page, _):
        await row(page, item).click()

        for text in ("You rate signals.", "SIMBTC long", '{"rating": 4}', "$0.00021", "812 → 64 tokens", "allow",
                     "rating 4 is enough", "ema_200", "101.5", item["signal"]):  # fmt: skip
            await expect(page.locator("#detail")).to_contain_text(text)
        await page.keyboard.press("Escape")
        await expect(page.locator("#detail")).to_be_hidden()
        await expect(row(page, item)).to_be_focused()


async def test_a_signal_tells_what_the_market_did_next(browser: Browser, daemon: StandIn) -> None:
    item = signal("SIMBTC", 200, 4)
    daemon.signals.append(item)
    async with opened(browser, daemon.url) as (page, _):
        await row(page, item).click()
        await expect(page.locator("#detail")).to_contain_text("no bar of its market has been stored since")
        await page.keyboard.press("Escape")
        daemon.details[item["signal"]] = {"outcome": {"horizons": HORIZONS}}
        await row(page, item).click()

        table = page.get_by_role("region", name="What the market did after the signal")
        await expect(table.locator("thead th")).to_have_text(["after", "market", "best", "worst", "close", "until"])
        await expect(table.locator("tbody tr").nth(0).locator("td")).to_have_text(
            ["1 bar", "+1.00 %", "+1.50 %", "0.00 %", "101.25", "2026-03-02 09:06"]
        )
        await expect(table.locator("tbody tr").nth(1).locator("td")).to_have_text(
            ["5 bars", "−1.12 %", "–", "–", "99.125", "2026-03-02 09:26"]
        )


async def test_whatever_a_model_writes_stays_text(browser: Browser, daemon: StandIn) -> None:
    texts = list(hostile())
    worst = "\n".join(texts)
    async with opened(browser, daemon.url) as (page, seen):
        await live(page)
        await page.locator("#least").select_option("0")
        for index, text in enumerate(MARKUP):
            item = signal("SIMBTC", index, 3, rationale=text, strategy=text, model=text, action=text)
            daemon.add_verdict(item)
            await expect(row(page, item)).to_have_count(1)
            assert await row(page, item).locator(".row-text").text_content() == text
        item = signal("SIMBTC", 100, 1, rationale=worst, error=worst, decision="deny", decision_reasons=texts)
        call = {"model": worst, "prompt": [{"role": worst, "content": worst}], "reply": worst, "error": worst}
        daemon.details[item["signal"]] = {
            "calls": [call], "outcome": {"horizons": [{"bars": worst, "until": worst, "close": worst}]},
            "snapshot": {"indicators": {text: text for text in texts}, "bars": []},
        }  # fmt: skip
        daemon.add_verdict(item)
        daemon.publish(
            "health", daemon.health() | {"ready": False, "reasons": [{"check": worst, "ok": False, "detail": worst}]}
        )
        await expect(page.locator("#banner")).to_contain_text(MARKUP[0])
        await row(page, item).click()
        await expect(page.locator("#detail pre")).to_have_count(3)

        assert await page.locator("#detail pre").nth(2).text_content() == worst
        assert (
            await page.locator("main script, main img, main iframe, dialog script, dialog img, dialog a").count() == 0
        )
        await seen.nothing()


async def test_after_an_outage_it_takes_up_where_it_was_without_a_row_twice(browser: Browser, daemon: StandIn) -> None:
    async with opened(browser, daemon.url) as (page, _):
        await live(page)
        daemon.add_verdict(signal("SIMBTC", 200, 4))
        await expect(page.locator("#feed li")).to_have_count(1)
        seen = len(daemon.resumed)

        await daemon.stop()
        await expect(page.locator("#banner")).to_contain_text("No connection since")
        await expect(page.locator("#link")).to_have_attribute("data-state", "lost")
        for index in (201, 202):
            daemon.add_verdict(signal("SIMBTC", index, 2))
        missed = daemon.add_bar("SIMBTC")
        await daemon.start()
        await page.get_by_role("button", name="Try now").click()

        await live(page)
        await expect(page.locator("#banner")).to_be_hidden()
        await expect(page.locator("#feed li")).to_have_count(3)
        await expect(page.locator("#last")).to_have_text(f"{missed['close']:.2f}")
        await expect(page.locator("#chart")).to_have_attribute("aria-label", re.compile("241 candles, 3 signals"))
        assert daemon.resumed[seen:] == ["1"]


async def test_events_that_are_gone_make_it_read_everything_anew(browser: Browser, daemon: StandIn) -> None:
    async with opened(browser, daemon.url) as (page, _):
        await live(page)
        daemon.bars["SIMBTC"].append(bar("SIMBTC", 240))
        daemon.signals.append(signal("SIMBTC", 239, 5))
        daemon.publish("reset", {})

        await expect(page.locator("#feed li")).to_have_count(1)
        await expect(page.locator("#chart")).to_have_attribute("aria-label", re.compile("241 candles, 1 signals"))


async def test_events_are_read_however_they_are_cut(browser: Browser, daemon: StandIn) -> None:
    text = (
        ': a comment\r\nretry: 5\n\nevent: bar\nid: 7\ndata: {\ndata: "a": 1}\n\nid: 8\r\n\r\n'
        'event: health\ndata:{}\n\nid: 9\nevent: bar\ndata: {"never"'
    )
    read = """async (text) => {
      const { EventText } = await import("/static/x/live.js");
      return [1, 2, 7, 1000].map((size) => {
        const seen = [];
        const events = new EventText((id) => seen.push(id), (kind, data) => seen.push([kind, data]));
        for (let at = 0; at < text.length; at += size) events.take(text.slice(at, at + size));
        return seen;
      });
    }"""
    async with opened(browser, daemon.url) as (page, _):
        seen = await page.evaluate(read, text)
    assert seen == [["7", ["bar", {"a": 1}], "8", ["health", {}]]] * 4


async def test_what_is_not_known_is_no_zero(browser: Browser, daemon: StandIn) -> None:
    words = """async () => {
      const { amount, price, usd, duration, count, signed } = await import("/static/x/format.js");
      return [price(null), usd(null), duration(undefined), count(null), signed(NaN), price(0.000012345),
        price(49369.84), usd(0.00021), usd(0), usd(12.5), duration(812), duration(93000),
        signed(-0.00001), signed(-0.0204), amount(null), amount(0.11462), amount(0), amount(53412.7)];
    }"""
    async with opened(browser, daemon.url) as (page, _):
        said = await page.evaluate(words)
    assert said == [
        "–", "cost unknown", "–", "–", "–", "0.000012345", "49,369.84",
        "$0.00021", "$0", "$12.50", "812 ms", "93.0 s", "0.00 %", "−2.04 %", "–", "0.1146", "0", "53,413",
    ]  # fmt: skip


async def test_a_token_is_asked_for_kept_in_the_tab_and_sent(browser: Browser, daemon: StandIn) -> None:
    daemon.token, daemon.admin = "read-me", "rule-me"
    async with opened(browser, daemon.url) as (page, _):
        gate = page.get_by_role("dialog", name="This daemon asks for a token")
        await gate.get_by_label("Token").fill("wrong")
        await page.keyboard.press("Enter")
        await expect(gate).to_contain_text("a token is needed")
        await gate.get_by_label("Token").fill("signal-only")
        await page.keyboard.press("Enter")
        await expect(gate).to_contain_text("the signal token does not allow this")
        await gate.get_by_label("Token").fill("read-me")
        await page.keyboard.press("Enter")

        await live(page)
        await page.reload()
        await live(page)
        assert await page.evaluate("[document.cookie, JSON.stringify(localStorage)]") == ["", "{}"]
        await page.get_by_role("button", name="Pause rating").click()
        stronger = page.get_by_role("dialog", name="This needs the admin token")
        await stronger.get_by_label("Token").fill("rule-me")
        await page.keyboard.press("Enter")
        await expect(page.locator("#banner")).to_contain_text("Rating is paused")
        assert daemon.paused


async def test_rating_is_paused_and_goes_on(browser: Browser, daemon: StandIn) -> None:
    async with opened(browser, daemon.url) as (page, _):
        await live(page)
        await page.keyboard.press("p")
        await expect(page.get_by_role("button", name="Resume rating")).to_have_attribute("aria-pressed", "true")
        assert daemon.paused
        said = "Rating is paused since 2026-11-29 00:00 UTC, from the command line (Ada): “<b>budget</b>”."
        await expect(page.locator("#banner")).to_contain_text(said)
        await page.get_by_role("button", name="Resume rating").click()
        await expect(page.get_by_role("button", name="Pause rating")).to_be_enabled()
        assert not daemon.paused


async def test_what_is_wrong_is_said_with_its_reason(browser: Browser, daemon: StandIn) -> None:
    daemon.ready = False
    async with opened(browser, daemon.url) as (page, _):
        await expect(page.locator("#banner")).to_contain_text("PostgreSQL is away for 12 s")
        await page.get_by_role("button", name="1 thing is wrong").click()
        await expect(page.locator("#reasons li")).to_have_count(5)
        await page.keyboard.press("Escape")
        await expect(page.locator("#reasons")).to_be_hidden()


async def test_a_daemon_without_bars_or_signals_says_so(browser: Browser, daemon: StandIn) -> None:
    daemon.bars = {}
    async with opened(browser, daemon.url) as (page, _):
        await expect(page.locator("#chart-note")).to_contain_text("No bars yet")
        await expect(page.locator("#feed-note")).to_contain_text("No signals yet")
        daemon.bars = {"NEW": [bar("NEW", 0)]}
        daemon.publish("bar", bar("NEW", 0))
        await expect(page.locator("#symbol")).to_have_text("NEW")
        await expect(page.locator(".chart-box")).to_have_attribute("data-state", "there")


async def test_an_error_is_shown_in_its_place_and_can_be_tried_again(browser: Browser, daemon: StandIn) -> None:
    daemon.broken = "the database does not answer yet; wait, or see `tradent doctor`"
    async with opened(browser, daemon.url) as (page, _):
        for place in ("#chart-note", "#feed-note", "#p-ratings", "#p-cost"):
            await expect(page.locator(place)).to_contain_text("see `tradent doctor`")
        daemon.broken = None
        await page.locator("#chart-note").get_by_role("button", name="Try again").click()
        await live(page)
        await expect(page.locator("#p-ratings")).to_contain_text("no signal rated yet")


async def test_everything_can_be_done_by_keyboard(browser: Browser, daemon: StandIn) -> None:
    items = [signal("SIMBTC", index, 4) for index in (220, 230)]
    daemon.signals += items
    async with opened(browser, daemon.url) as (page, _):
        await live(page)
        await page.keyboard.press("Tab")
        await expect(page.get_by_role("link", name="Skip to the chart")).to_be_focused()
        await page.keyboard.press("]")
        await expect(page.locator("#symbol")).to_have_text("SIMETH")
        await page.keyboard.press("[")
        await expect(page.locator("#symbol")).to_have_text("SIMBTC")

        await page.keyboard.press("c")
        await expect(page.locator("#chart")).to_be_focused()
        await page.keyboard.press("ArrowLeft")
        await expect(page.locator("#said")).to_contain_text("2026-11-29 03:59, open")
        await page.keyboard.press(",")
        await expect(page.locator("#said")).to_contain_text("rated 4 of 5")
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("dialog")).to_contain_text(items[1]["signal"])
        await page.keyboard.press("Escape")
        await page.keyboard.press("j")
        await page.keyboard.press("j")
        await expect(row(page, items[0])).to_be_focused()
        await page.keyboard.press("?")
        await expect(page.get_by_role("dialog", name="Keyboard")).to_be_visible()
        await page.get_by_label("Single keys do something").uncheck()
        await page.keyboard.press("Escape")
        await page.keyboard.press("]")
        await expect(page.locator("#symbol")).to_have_text("SIMBTC")


async def test_each_place_that_takes_focus_shows_it_and_has_a_name(browser: Browser, daemon: StandIn) -> None:
    daemon.signals.append(signal("SIMBTC", 220, 4))
    async with opened(browser, daemon.url) as (page, _):
        await live(page)
        visited = []
        for _ in range(40):
            await page.keyboard.press("Tab")
            found = await page.evaluate(
                """() => { const it = document.activeElement; const style = getComputedStyle(it);
                return it === document.body ? null : [it.id || it.className || it.textContent, style.outlineStyle,
                  it.ariaLabel || it.textContent.trim() || it.labels?.[0]?.textContent || it.title]; }"""
            )
            if found is None:
                break
            visited.append(found)

        order = [name for name, _, _ in visited]
        assert order.index("health") < order.index("pause") < order.index("chart") < order.index("only")
        assert [name for name, outline, label in visited if outline == "none" or not label] == []


async def test_the_chart_can_be_read_as_a_table(browser: Browser, daemon: StandIn) -> None:
    item = signal("SIMBTC", 238, 2)
    daemon.signals.append(item)
    async with opened(browser, daemon.url) as (page, _):
        await live(page)
        await page.keyboard.press("t")
        rows = page.locator("#chart-table tbody tr")
        await expect(rows).to_have_count(200)
        await expect(rows.nth(1)).to_contain_text(f"{item['price']:.2f}")
        verdict = rows.nth(1).get_by_role("button", name="short, rated 2 of 5")
        await verdict.click()
        await expect(page.get_by_role("dialog")).to_contain_text(item["signal"])


async def test_the_table_has_every_signal_that_the_chart_has(browser: Browser, daemon: StandIn) -> None:
    """Two at one close stand apart; one that came from outside within a bar is at that bar."""
    within = bar("SIMBTC", 236)["open_time"].replace(":00Z", ":20Z")
    daemon.signals += [
        signal("SIMBTC", 238, 2), signal("SIMBTC", 238, 4, signal="sig-another"),
        signal("SIMBTC", 236, 5, close_time=within),
    ]  # fmt: skip
    async with opened(browser, daemon.url) as (page, _):
        await live(page)
        await page.keyboard.press("t")
        signals = page.locator("#chart-table tbody tr td:last-child")
        await expect(signals.nth(1)).to_have_text("short, rated 2 of 5; short, rated 4 of 5")
        await expect(signals.nth(3)).to_have_text("exit, rated 5 of 5")


async def test_bars_shorter_than_a_minute_are_told_apart_by_ear(browser: Browser, daemon: StandIn) -> None:
    said = """async () => (await import("/static/x/words.js")).barInWords(
      { t: Date.UTC(2026, 10, 29, 4, 0, 5), o: 1, h: 1, l: 1, c: 1 }, [], true)"""
    async with opened(browser, daemon.url) as (page, _):
        assert (await page.evaluate(said)).startswith("2026-11-29 04:00:05, open")


async def test_what_comes_in_does_not_take_the_focus_away(browser: Browser, daemon: StandIn) -> None:
    waiting, rated = signal("SIMBTC", 237, None), signal("SIMBTC", 238, 2)
    daemon.signals += [waiting, rated]
    async with opened(browser, daemon.url) as (page, _):
        await live(page)
        await row(page, waiting).focus()
        daemon.add_verdict(signal("SIMBTC", 237, 5))
        await expect(row(page, waiting).locator(".chip")).to_have_text("5")
        await expect(row(page, waiting)).to_be_focused()

        await page.keyboard.press("t")
        cell = page.get_by_role("button", name="short, rated 2 of 5")
        await cell.focus()
        added = daemon.add_bar("SIMBTC")
        await expect(page.locator("#chart-table tbody tr").first).to_contain_text(f"{added['close']:.2f}")
        await expect(cell).to_be_focused()


async def test_going_back_in_time_brings_earlier_bars(browser: Browser) -> None:
    async with StandIn(("SIMBTC",), 1700) as daemon, opened(browser, daemon.url) as (page, _):
        chart = page.locator("#chart")
        await expect(chart).to_have_attribute("aria-label", re.compile("1500 candles, 0 signals"))
        daemon.signals.append(signal("SIMBTC", 100, 5))
        await page.get_by_role("button", name="All", exact=True).click()
        await expect(chart).to_have_attribute("aria-label", re.compile("1700 candles, 1 signals"))


async def test_a_phone_needs_no_scrolling_sideways(browser: Browser, daemon: StandIn) -> None:
    wide = "W" * 300
    daemon.bars = {wide[:64]: [bar(wide[:64], index) for index in range(240)], "SIMBTC": daemon.bars["SIMBTC"]}
    daemon.signals.append(signal(wide[:64], 238, 2, rationale=wide, strategy=wide, model=wide))
    daemon.signals.append(signal("SIMBTC", 239, 2))
    options = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}
    async with opened(browser, daemon.url, **options) as (page, _):
        await live(page)
        assert await page.evaluate("document.documentElement.scrollWidth") == 360
        await page.keyboard.press("]")
        await expect(page.locator("#symbol")).to_have_text(wide[:64])
        assert await page.evaluate("document.documentElement.scrollWidth") == 360
        await page.locator("#feed button", has_text=wide[:64]).tap()
        await expect(page.locator("#detail")).to_contain_text(wide)
        assert await page.evaluate("document.querySelector('#detail').scrollWidth") <= 360


async def test_colours_follow_the_system_until_they_are_chosen(browser: Browser, daemon: StandIn) -> None:
    ground = "getComputedStyle(document.querySelector('.panel')).backgroundColor"
    async with opened(browser, daemon.url, color_scheme="dark") as (page, _):
        dark = await page.evaluate(ground)
        await page.emulate_media(color_scheme="light")
        light = await page.evaluate(ground)
        await page.locator("#theme").click()
        await page.keyboard.press("d")
        chosen = await page.evaluate(ground)
        await page.reload()

        assert dark != light
        assert chosen == dark
        assert await page.evaluate(ground) == dark


async def test_numbers_on_ratings_and_text_stand_out_enough(browser: Browser, daemon: StandIn) -> None:
    contrast = """() => { const probe = document.createElement('i'); document.body.append(probe);
      const light = (name) => { probe.style.color = `var(--${name})`;
        const [r, g, b] = getComputedStyle(probe).color.match(/[\\d.]+/g).map((x) => x / 255)
          .map((x) => (x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
      const pairs = [1, 2, 3, 4, 5].map((n) => [`r${n}`, `r${n}-ink`]).concat([['ground', 'ink'], ['ground', 'quiet'],
        ['paper', 'quiet'], ['bad-back', 'bad'], ['ground', 'good']]);
      return pairs.map(([a, b]) => [`${a} ${b}`, [light(a) + 0.05, light(b) + 0.05].sort((x, y) => y - x)])
        .map(([name, [high, low]]) => [name, high / low]); }"""
    async with opened(browser, daemon.url) as (page, _):
        for scheme in ("light", "dark"):
            await page.emulate_media(color_scheme=scheme)
            assert [pair for pair in await page.evaluate(contrast) if pair[1] < 4.5] == [], scheme


async def test_a_day_of_twenty_markets_is_there_and_keeps_up(browser: Browser) -> None:
    symbols = tuple(f"SIM{number:02}" for number in range(20))
    async with StandIn(symbols, 1440) as daemon, opened(browser, daemon.url) as (page, _):
        await live(page)
        await expect(page.locator(".market-last", has_text=re.compile(r"\d"))).to_have_count(20)
        for _ in range(30):
            for symbol in symbols:
                daemon.add_bar(symbol)
        last = daemon.bars[symbols[19]][-1]

        await expect(page.locator("#market-list li").nth(19).locator(".market-last")).to_have_text(
            f"{last['close']:.2f}"
        )
        await page.locator("#market-list button").nth(19).click()
        await expect(page.locator("#chart")).to_have_attribute("aria-label", re.compile("1470 candles"))


async def test_a_signal_on_the_chart_opens_by_a_click(browser: Browser, daemon: StandIn) -> None:
    item = signal("SIMBTC", 225, 5)
    daemon.signals.append(item)
    async with opened(browser, daemon.url) as (page, _):
        await live(page)
        place = "window.tradent.chart.boxes.length && (({x, y}) => ({x, y}))(window.tradent.chart.boxes[0])"
        await page.locator("#chart").click(position=await evaluates(page, place))
        await expect(page.get_by_role("dialog")).to_contain_text(item["signal"])


async def test_chart_and_list_have_the_same_sign_for_why_there_is_no_rating(browser: Browser, daemon: StandIn) -> None:
    item = signal("SIMBTC", 225, None, status="skipped", finished_at="2026-11-29T04:00:00Z")
    daemon.signals.append(item)
    async with opened(browser, daemon.url) as (page, _):
        await live(page)
        sign = await row(page, item).locator(".chip").text_content()
        drawn = """() => { const { pen, boxes } = window.tradent.chart; const drawn = [];
          pen.fillText = (text) => drawn.push(text);
          try { window.tradent.chart.draw(); } finally { delete pen.fillText; }
          return boxes.length && drawn; }"""
        assert sign == "○"
        assert sign in await evaluates(page, f"({drawn})()")


async def test_a_closed_tab_listens_no_more(browser: Browser, daemon: StandIn) -> None:
    async with opened(browser, daemon.url) as (page, _):
        await live(page)
        assert daemon.listeners == 1

    def is_gone() -> bool:
        daemon.publish("health", daemon.health())
        return daemon.listeners == 0

    await until(is_gone)
