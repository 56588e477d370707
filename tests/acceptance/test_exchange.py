"""The whole program on a live exchange, stopped and started again: every bar once, and signals of the new ones."""

import json
import signal
from datetime import timedelta
from pathlib import Path

from service.doctor_daemon import Heard, daemon_findings
from service.findings import Level
from service.settings import Settings
from service.status import ask, fetch_status
from tests.daemon import Daemon, Look
from tests.exchange_server import ExchangeServer
from trading.clock import SystemClock
from trading.feeds.exchange import ACT_WITHIN_S

SYMBOLS = ["BTC/USDT", "ETH/USDT"]
BARS = "SELECT open_time, open, high, low, close, volume FROM market_data WHERE symbol = '{}' ORDER BY open_time"
NEW = "SELECT count(*) > 3 FROM market_data WHERE symbol = '{}' AND open_time > to_timestamp({})"


async def test_a_stop_leaves_no_hole_and_no_double_and_new_bars_make_signals(database: str, tmp_path: Path) -> None:
    """A stream of bars of a second; those of the past that are too old to act on make none. The first stop is a kill
    while the past is being fetched.
    """
    clock = SystemClock()
    began = clock.now()
    async with ExchangeServer(SYMBOLS, step_s=1, clock=clock) as server:
        feed = {"type": "exchange", "exchange": "binance", "symbols": SYMBOLS, "timeframe": "1s", "history_bars": 400,
                "base_url": server.url}  # fmt: skip
        trading = {"feed": feed, "strategies": [{"type": "ma_cross", "fast": 2, "slow": 5}]}
        daemon = Daemon(tmp_path, {"trading": trading, "database": {"url": database}})
        look = Look(database)
        server.page = 25
        async with daemon.start() as running:
            await look.until("SELECT count(*) > 0 FROM market_data")
            running.send(signal.SIGKILL)
            await running.ended()
        server.page = ExchangeServer.page
        for _ in range(2):
            started_s = clock.now().timestamp()
            async with daemon.start() as running:
                for symbol in SYMBOLS:
                    await look.until(NEW.format(symbol, started_s))
                port = running.log.partition("answered at http://127.0.0.1:")[2].split()[0]
                status, out, _ = await daemon.do("status", "--json", "--set", f"service.port={port}")
                assert status == 0
                running.send(signal.SIGTERM)
                assert await running.ended() == 0
            live = json.loads(out)["feed"]["live"]
            assert live["connected"]
            assert abs(live["clock_offset_s"]) < 5
            assert "Traceback" not in running.log
        for symbol in SYMBOLS:
            rows = await look.rows(BARS.format(symbol))
            came = [(round(row[0].timestamp() * 1000), *map(float, row[1:])) for row in rows]
            assert came == [tuple(each) for each in server.market.closed(symbol, came[0][0], came[-1][0] + 1)]
            assert len(came) >= 399
        closes = [row[0] for row in await look.rows("SELECT close_time FROM signals")]
        assert len(closes) > 10
        assert min(closes) >= began - timedelta(seconds=ACT_WITHIN_S + 1)


async def test_a_symbol_that_is_not_listed_is_told_wherever_one_looks_for_as_long_as_it_holds(
    database: str, tmp_path: Path
) -> None:
    async with ExchangeServer(SYMBOLS, step_s=1, clock=SystemClock()) as server:
        feed = {"type": "exchange", "symbols": ["BTC/USDT", "ETHUSDT"], "timeframe": "1s", "history_bars": 5,
                "base_url": server.url}  # fmt: skip
        daemon = Daemon(tmp_path, {"trading": {"feed": feed}, "database": {"url": database}})
        async with daemon.start() as running:
            await Look(database).until("SELECT count(*) > 0 FROM market_data")
            port = running.log.partition("answered at http://127.0.0.1:")[2].split()[0]
            feed = json.loads(await fetch_status("127.0.0.1", int(port)))["feed"]
            answer = await ask("127.0.0.1", int(port), "/readyz")
            settings = Settings.load(tmp_path / "config.json", [f"service.port={port}"])
            found = [each async for each in daemon_findings(settings, Heard())]
    told = "there is no such symbol; did you mean ETH/USDT?"
    assert feed["live"]["unlisted"] == {"ETHUSDT": told}
    assert answer.status == 503
    (check,) = (each for each in json.loads(answer.body)["checks"] if not each["ok"])
    assert check["check"] == "feed"
    assert f"binance does not list ETHUSDT ({told}): correct trading.feed.symbols. Otherwise: 1 " in check["detail"]
    assert "daemon, feed" in [each.check for each in found if each.level is Level.FAIL]


async def test_symbols_of_which_the_exchange_lists_none_are_wrong_settings(database: str, tmp_path: Path) -> None:
    """Exit 78: systemd then does not start it again."""
    async with ExchangeServer(SYMBOLS, step_s=1, clock=SystemClock()) as server:
        feed = {"type": "exchange", "symbols": ["BTCUSDT", "eth-usdt"], "timeframe": "1s", "base_url": server.url}
        status, _, log = await Daemon(tmp_path, {"trading": {"feed": feed}, "database": {"url": database}}).do("run")
    assert status == 78
    assert "trading.feed.symbols = 'BTCUSDT': there is no such symbol; did you mean BTC/USDT?" in log
    assert "trading.feed.symbols = 'eth-usdt': there is no such symbol; did you mean ETH/USDT?" in log
    assert "Traceback" not in log


async def test_an_exchange_that_is_not_known_is_refused_at_the_start(database: str, tmp_path: Path) -> None:
    """Exit 78: systemd then does not start it again."""
    feed = {"type": "exchange", "exchange": "binence", "symbols": SYMBOLS}
    status, _, log = await Daemon(tmp_path, {"trading": {"feed": feed}, "database": {"url": database}}).do("run")
    assert status == 78
    assert "trading.feed.exchange = 'binence': there is no such exchange; did you mean binance" in log
    assert "Traceback" not in log
