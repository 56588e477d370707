"""Everything that goes wrong at an exchange, at random and at once: the bars are still all there, once, and true."""

import asyncio
import random

from tests.exchange_server import ExchangeServer
from tests.exchange_watch import watched

FAULTS = 12
BODIES = ["", "<html>", "[]", "null", "{}"]


async def go_wrong(server: ExchangeServer, die: random.Random) -> None:
    """One thing, chosen by the die."""
    market = server.market
    match die.choice(["cut", "unsent", "absent", "fail", "ban", "hang", "bad", "mute", "repeat", "say", "shut"]):
        case "cut":
            await server.cut()
        case "unsent":
            server.unsent.update(market.open_ms + market.step_ms * n for n in range(1, die.randint(2, 4)))
        case "absent":
            market.absent.update(market.open_ms + market.step_ms * n for n in range(2, die.randint(3, 5)))
        case "fail":
            server.fail(die.choice([400, 403, 500, 502, 503, 504]), "oops", times=die.randint(1, 3))
        case "ban":
            server.fail(die.choice([418, 429]), "{}", {"Retry-After": "60"})
        case "hang":
            server.fail(body=None)
        case "bad":
            server.fail(200, die.choice(BODIES))
        case "mute":
            server.mute = not server.mute
        case "repeat":
            server.repeats = die.randint(1, 3)
        case "say":
            await server.say(die.choice(["{", "null", '{"e":"kline"}']))
        case "shut":
            await server.shut()
            await asyncio.sleep(die.random() / 2)
            await server.open()


async def test_no_bar_is_lost_or_doubled_or_wrong_whatever_goes_wrong() -> None:
    die = random.Random(5)
    async with watched("BTC/USDT", "ETH/USDT", timeout_seconds=0.5) as (server, watch):
        await watch.until_bar(3)
        for _ in range(FAULTS):
            await go_wrong(server, die)
            await asyncio.sleep(die.random() / 2)
        server.mute = False
        for symbol in server.market.symbols:
            await watch.until_open(server.market.open_ms + 2 * server.market.step_ms, symbol)
            watch.require_whole(symbol)
        assert (watch.count["corrected_after_close"], watch.count["late"]) == (0, 0)
        assert watch.count["failed_requests"] > 3
