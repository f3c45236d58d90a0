"""`make screenshots`: the page with users and prices, at 360 and 1280 px, light and dark, in build/screenshots/."""

import asyncio
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from playwright.async_api import Browser, expect

from deploy.local.settings import PROJECT
from tests.browser.community import LAST_TEXT, ROOMS, Community
from tests.browser.prices import PriceWalk
from tests.support.browser import CHROMIUM, DESKTOP, INSTALL, PHONE, Scheme, Visitor, chromium
from tests.support.infrastructure import Infrastructure
from tests.support.local_system import LocalSystem, settings_on

TARGET = PROJECT / "build" / "screenshots"
VIEWER = "Ada Lovelace"
SCHEMES: tuple[Scheme, ...] = ("light", "dark")

Shoot = Callable[[str], Awaitable[None]]


def main() -> int:
    """Write the screenshots and print their location."""
    if not CHROMIUM.exists():
        print(f"screenshots: {CHROMIUM} is missing: {INSTALL}", file=sys.stderr)
        return 1
    TARGET.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as directory, Infrastructure(Path(directory)) as infrastructure:
        settings = settings_on(infrastructure) | {"MARKET_SOURCE": "amqp"}
        with LocalSystem(Path(directory) / "system", settings) as system:
            entries = system.entries()
            asyncio.run(take_all(entries["GATEWAY_URL"], infrastructure.amqp_url))
    print(f"{len(list(TARGET.glob('*.png')))} pictures in {TARGET.relative_to(PROJECT)}/")
    return 0


async def take_all(url: str, amqp_url: str) -> None:
    """Populate the system, then take every screenshot."""
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(PriceWalk(amqp_url, time.time()).moving())
        community = await stack.enter_async_context(Community.gather(url, VIEWER))
        browser = await stack.enter_async_context(chromium())
        for scheme in SCHEMES:
            await community.add_unread()
            await on_a_desktop(browser, url, scheme, community)
            await community.add_unread()
            await on_a_phone(browser, url, scheme, community)


@asynccontextmanager
async def visit(
    browser: Browser, url: str, scheme: Scheme, size: tuple[int, int]
) -> AsyncIterator[tuple[Visitor, Shoot]]:
    """Yield a visitor and a function that takes a screenshot."""
    async with Visitor.arrive(browser, url, size=size, scheme=scheme, device_scale_factor=2) as visitor:

        async def shoot(name: str) -> None:
            await visitor.page.wait_for_timeout(400)  # for a fade-out, not for a condition
            await visitor.page.screenshot(path=TARGET / f"{size[0]}-{scheme}-{name}.png")

        yield visitor, shoot


async def on_a_desktop(browser: Browser, url: str, scheme: Scheme, community: Community) -> None:
    """Take the desktop views side by side, then the dialogs."""
    async with visit(browser, url, scheme, DESKTOP) as (ada, shoot):
        await shoot("sign-in")
        await ada.sign_in(VIEWER)
        await choose_symbol(ada, "XAU/USD")
        await ada.room(ROOMS[0].name).click()
        await expect(ada.page.get_by_text(LAST_TEXT)).to_be_visible()
        async with community.typing():
            await expect(ada.page.locator(".typing")).to_contain_text("typing")
            await shoot("chat")
        await ada.page.get_by_role("button", name="Pinned messages, 1").click()
        await shoot("pins")
        await ada.page.keyboard.press("Escape")
        await ada.page.get_by_role("button", name="Search messages").click()
        await ada.page.get_by_role("dialog").get_by_role("searchbox").fill("2,400")
        await expect(ada.page.get_by_role("dialog")).to_contain_text("That fits")
        await shoot("search")
        for _ in range(2):  # the first one clears the field
            await ada.page.keyboard.press("Escape")
        for opener, name in (("#bell", "notifications"), ("#connection", "connection")):
            await ada.page.locator(opener).click()
            await shoot(name)
            await ada.page.keyboard.press("Escape")
        await ada.page.get_by_role("button", name="Members", exact=True).click()
        await shoot("members")
        await ada.page.keyboard.press("Escape")
        await ada.page.get_by_role("button", name="New room").click()
        await shoot("new-room")


async def on_a_phone(browser: Browser, url: str, scheme: Scheme, community: Community) -> None:
    """Take one view after the other."""
    async with visit(browser, url, scheme, PHONE) as (ada, shoot):
        await shoot("sign-in")
        await ada.sign_in(VIEWER)
        await expect(ada.room(ROOMS[0].name)).to_be_visible()
        await shoot("rooms")
        await ada.room(ROOMS[0].name).click()
        await expect(ada.page.get_by_text(LAST_TEXT)).to_be_visible()
        async with community.typing():
            await expect(ada.page.locator(".typing")).to_contain_text("typing")
            await shoot("chat")
        await ada.page.get_by_role("navigation", name="Views").get_by_role("button", name="Markets").click()
        await choose_symbol(ada, "BTC/USD")
        await shoot("markets")
        await ada.page.locator("#bell").click()
        await shoot("notifications")


async def choose_symbol(visitor: Visitor, symbol: str) -> None:
    """Show the candles of a symbol."""
    await visitor.page.get_by_role("button", name=symbol, exact=True).click()
    await visitor.page.locator(".segment", has_text="5m").click()
    await expect(visitor.page.locator(".candles .body").nth(20)).to_be_visible()


if __name__ == "__main__":
    sys.exit(main())
