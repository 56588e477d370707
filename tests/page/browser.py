"""A real Chromium without a screen, and a page in it that notes whatever went wrong."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from playwright.async_api import Browser, Page, async_playwright, expect

CHROMIUM = shutil.which("chromium")
ABSENT = "chromium is not installed (Debian: apt-get install chromium)"
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--no-first-run",
]  # fmt: skip
LIMIT_MS = 90_000
expect.set_options(timeout=LIMIT_MS)
# Run before the page: what its Content-Security-Policy refused, and every word that a dialog would have said.
NOTE_VIOLATIONS = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (event) =>
  window.violations.push(`${event.violatedDirective} ${event.blockedURI} ${event.sourceFile}:${event.lineNumber}`));
"""


class Seen:
    """What a page did that it should not: errors nobody caught, dialogs, requests to elsewhere."""

    def __init__(self, page: Page, origin: str) -> None:
        self.errors: list[str] = []
        self.dialogs: list[str] = []
        self.elsewhere: list[str] = []
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("dialog", lambda dialog: self.dialogs.append(dialog.message))
        page.on("request", lambda request: request.url.startswith(origin) or self.elsewhere.append(request.url))
        self._page = page

    async def nothing(self) -> None:
        """Raise where there was anything."""
        violations = await self._page.evaluate("window.violations")
        found = {"errors": self.errors, "dialogs": self.dialogs, "elsewhere": self.elsewhere, "policy": violations}
        assert not any(found.values()), found


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """The browser; one for all tests of a module, each with a context of its own."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        try:
            yield browser
        finally:
            await browser.close()


@asynccontextmanager
async def opened(browser: Browser, url: str, before: str = "", **options: Any) -> AsyncIterator[tuple[Page, Seen]]:
    """The page at `url`, in a context with these options, `before` run before it; nothing may go wrong in it."""
    options = {
        "viewport": {"width": 1280, "height": 800},
        "color_scheme": "light",
        "reduced_motion": "reduce",
        **options,
    }
    context = await browser.new_context(**options)
    try:
        page = await context.new_page()
        page.set_default_timeout(LIMIT_MS)
        await page.add_init_script(NOTE_VIOLATIONS + before)
        seen = Seen(page, url)
        await page.goto(url)
        yield page, seen
        await seen.nothing()
    finally:
        await context.close()


async def evaluates(page: Page, expression: str, limit_s: float = LIMIT_MS / 1000) -> Any:
    """Wait for a value that is true; Playwright's own way would need eval, which the page's policy refuses."""
    async with asyncio.timeout(limit_s):
        while not (value := await page.evaluate(expression)):  # noqa: ASYNC110 - it is so in the browser, or not
            await asyncio.sleep(0.02)
    return value


async def until(condition: Callable[[], bool], limit_s: float = LIMIT_MS / 1000) -> None:
    """Wait for something that is so on this side."""
    async with asyncio.timeout(limit_s):
        while not condition():  # noqa: ASYNC110 - what is waited for is another program's doing
            await asyncio.sleep(0.01)


async def live(page: Page) -> None:
    """Wait until it is connected and shows a chart."""
    await expect(page.locator("#link")).to_have_attribute("data-state", "live")
    await expect(page.locator(".chart-box")).to_have_attribute("data-state", "there")
