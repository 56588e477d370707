"""The exchange feed in the dialects of more exchanges, asked over HTTP: the same bars come out of each."""

import pytest

from tests.exchange_more_dialects import DIALECTS, TOO_OLD, BitgetServer, GateServer, RestDialect
from tests.exchange_watch import stored, watched


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_each_dialect_gives_closed_bars_page_by_page_with_the_volume_of_the_base(
    dialect: type[RestDialect],
) -> None:
    async with watched(dialect=dialect, websocket=False, after=lambda server: stored(server, 700)) as (server, watch):
        await watch.until_open(server.market.open_ms)
        came = watch.require_whole()
        assert came[0].open_ms == watch.stored_ms + server.market.step_ms


@pytest.mark.parametrize("ahead_s", [7200.0, -7200.0])
@pytest.mark.parametrize("dialect", [BitgetServer, GateServer])
async def test_a_host_whose_clock_is_wrong_asks_each_for_the_right_time(
    dialect: type[RestDialect], ahead_s: float
) -> None:
    """ccxt asks these up to the present: by the host's clock it would be an end before the beginning."""
    async with watched(dialect=dialect, websocket=False, ahead_s=ahead_s, rate=60.0) as (server, watch):
        await watch.until_open(server.market.open_ms)
        watch.require_whole()


async def test_where_bars_of_so_long_ago_are_refused_those_that_are_not_come(caplog: pytest.LogCaptureFixture) -> None:
    """Gate tells no more than the last ten thousand: a week of minutes is too long a gap."""
    async with watched(
        dialect=GateServer, websocket=False, rate=60.0, after=lambda server: stored(server, TOO_OLD + 5_000)
    ) as (server, watch):
        await watch.until_open(server.market.open_ms)
        assert len(watch.require_whole()) > 0.99 * TOO_OLD
        await watch.until(lambda: watch.feed.state.trouble is None)
    assert caplog.text.count("bars of so long ago are refused") == 1
    assert caplog.text.count("it refuses the request") == 1
