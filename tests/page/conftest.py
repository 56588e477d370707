"""What the tests of the page share: one browser for a module, and a stand-in for the daemon for each test."""

from collections.abc import AsyncIterator

import pytest_asyncio
from playwright.async_api import Browser

from tests.page.browser import chromium
from tests.page.stand_in import StandIn


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def daemon() -> AsyncIterator[StandIn]:
    async with StandIn() as running:
        yield running
