"""Makes the pictures of the page from the real program: `python -m docs.make_page_pictures docs`.

Runs the daemon on the simulated market, in a folder of its own and rated by the built-in rules, and takes the page in
headless Chromium: on a desk in light, on a phone in dark.
"""

import asyncio
import os
import sys
import tempfile
from pathlib import Path

from playwright.async_api import Page, expect

from docs.small_png import small
from tests.daemon import Daemon
from tests.page.browser import ABSENT, CHROMIUM, chromium, evaluates, opened

SETTINGS = {
    "trading": {
        "feed": {"type": "simulated", "symbols": ["SIMADA", "SIMBTC", "SIMETH", "SIMSOL", "SIMXRP"], "history": 700},
        "strategies": [{"type": "ma_cross"}, {"type": "rsi_reversal"}, {"type": "donchian_breakout"}],
    },
    "service": {"port": 8755},
}
URL = "http://127.0.0.1:8755/"
DESK = {"viewport": {"width": 1280, "height": 760}, "color_scheme": "light"}
PHONE = {"viewport": {"width": 390, "height": 800}, "color_scheme": "dark", "is_mobile": True, "has_touch": True}
ALL_RATED_S = 20.0


async def taken(page: Page) -> bytes:
    """The page once everything is drawn, as PNG."""
    await expect(page.locator(".chart-box")).to_have_attribute("data-state", "there")
    await evaluates(page, "[...window.tradent.market.series.values()].every((line) => line.loaded)")
    await expect(page.locator("#p-ratings")).to_contain_text("%")
    await expect(page.locator("#feed .row").first).to_be_visible()
    return small(await page.screenshot())


async def pictures() -> dict[str, bytes]:
    """Both pictures by their names."""
    with tempfile.TemporaryDirectory(prefix="tradent-pictures-") as home:
        os.chmod(home, 0o755)  # noqa: PTH101 - nothing to wait for
        async with Daemon(Path(home), SETTINGS).start() as running, chromium() as browser:
            await running.said("is answered at")
            await asyncio.sleep(ALL_RATED_S)
            async with opened(browser, URL, **DESK) as (page, _):
                await page.locator("#market-list button", has_text="SIMETH").click()
                desk = await taken(page)
            async with opened(browser, URL, **PHONE) as (page, _):
                phone = await taken(page)
    return {"page-desk.png": desk, "page-phone.png": phone}


def main() -> None:
    """Write the pictures into the folder that is named."""
    if len(sys.argv) != 2:
        raise SystemExit("name the folder to write to: python -m docs.make_page_pictures docs")
    if CHROMIUM is None:
        raise SystemExit(ABSENT)
    for name, png in asyncio.run(pictures()).items():
        (Path(sys.argv[1]) / name).write_bytes(png)


if __name__ == "__main__":
    main()
