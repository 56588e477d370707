"""How the page's files are served, over real HTTP."""

import gzip
import re
from collections.abc import AsyncIterator

import aiohttp
import pytest

from service.http.page import read_site
from tests.page.stand_in import StandIn

MOST_BYTES = 1_600_000


@pytest.fixture
async def asked() -> AsyncIterator[aiohttp.ClientSession]:
    async with StandIn() as daemon, aiohttp.ClientSession(daemon.url, auto_decompress=False) as session:
        yield session


async def urls(asked: aiohttp.ClientSession) -> list[str]:
    async with asked.get("/", headers={"Accept-Encoding": "identity"}) as page:
        return sorted({f"/{url}" for url in re.findall(r'(?:src|href)="(static/[^"]+)"', await page.text())})


async def test_all_of_it_is_small_packed_and_kept_for_good(asked: aiohttp.ClientSession) -> None:
    total = 0
    for url in ["/", *await urls(asked)]:
        async with asked.get(url, headers={"Accept-Encoding": "gzip"}) as answer:
            body = await answer.read()
            assert answer.headers["Content-Encoding"] == "gzip"
            assert gzip.decompress(body)
            kept = "no-cache" if url == "/" else "public, max-age=31536000, immutable"
            assert answer.headers["Cache-Control"] == kept
        total += len(body)
    assert total < MOST_BYTES


async def test_every_file_is_named_in_the_page_so_that_all_come_at_once(asked: aiohttp.ClientSession) -> None:
    named = {url.rpartition("/")[2] for url in await urls(asked)}
    assert named == read_site().assets.keys() - {"index.html"}


async def test_nothing_may_come_from_elsewhere_or_stand_inline(asked: aiohttp.ClientSession) -> None:
    async with asked.get("/", headers={"Accept-Encoding": "identity"}) as answer:
        policy = answer.headers["Content-Security-Policy"]
        text = await answer.text()
    assert policy.startswith("default-src 'self'; ")
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert "require-trusted-types-for 'script'" in policy
    assert not re.search(r"https?://|<script>|\sstyle=|\son\w+=", text)


async def test_what_has_not_changed_is_not_sent_again(asked: aiohttp.ClientSession) -> None:
    async with asked.get("/") as first:
        tag = first.headers["ETag"]
    async with asked.get("/", headers={"If-None-Match": tag}) as again:
        assert (again.status, await again.read()) == (304, b"")


@pytest.mark.parametrize("name", ["index.html", "__init__.py", "..%2Fdaemon.py", "nothing.js"])
async def test_only_the_pages_own_files_are_served(asked: aiohttp.ClientSession, name: str) -> None:
    async with asked.get(f"/static/x/{name}") as answer:
        assert answer.status == 404


async def test_a_file_of_another_version_is_not_kept(asked: aiohttp.ClientSession) -> None:
    async with asked.get("/static/older/app.js") as answer:
        assert (answer.status, answer.headers["Cache-Control"]) == (200, "no-cache")
