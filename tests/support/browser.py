"""Visitors with a browser: one Chromium for all tests, with a context per visitor.

    async with chromium() as browser, Visitor.arrive(browser, url, "Ada Lovelace") as ada:
        await ada.create_room("EUR/USD")
        await ada.say("Hello")
        await ada.sees_message("Hello")

A page that logs an error, throws, or violates its content security policy fails its test when the visitor leaves.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal, Self

from playwright.async_api import Browser, BrowserContext, Locator, Page, ViewportSize, async_playwright, expect

CHROMIUM = Path("/usr/bin/chromium")
INSTALL = "sudo make tools"
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"),
    *("--disable-sync", "--no-first-run", "--disable-dev-shm-usage", "--hide-scrollbars"),
)
TIMEOUT_MS = 30_000
DESKTOP = (1280, 800)
PHONE = (360, 740)

Scheme = Literal["light", "dark"]

expect.set_options(timeout=TIMEOUT_MS)


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """Yield one browser process."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS), timeout=TIMEOUT_MS)
        try:
            yield browser
        finally:
            await browser.close()


class Visitor:
    """One visitor with a browser context. `problems` collects errors of the page."""

    def __init__(self, context: BrowserContext, page: Page, url: str) -> None:
        self._context = context
        self._url = url
        self.page = page
        self.problems: list[str] = []
        page.set_default_timeout(TIMEOUT_MS)
        page.on("pageerror", lambda error: self.problems.append(f"thrown: {error}"))
        page.on("console", lambda message: self._note_console_message(message.type, message.text))

    def _note_console_message(self, kind: str, text: str) -> None:
        """Record a console message, except the browser's own about a lost connection."""
        if kind == "error" and "WebSocket connection to" not in text and "net::ERR_" not in text:
            self.problems.append(text)

    @classmethod
    @asynccontextmanager
    async def arrive(
        cls,
        browser: Browser,
        url: str,
        name: str | None = None,
        *,
        size: tuple[int, int] = DESKTOP,
        scheme: Scheme = "light",
        **options: Any,
    ) -> AsyncIterator[Self]:
        """Open the page, and sign in if a name is given. `options` are Playwright's for a context."""
        viewport = ViewportSize(width=size[0], height=size[1])
        context = await browser.new_context(viewport=viewport, color_scheme=scheme, locale="en-GB", **options)
        try:
            visitor = cls(context, await context.new_page(), url)
            await visitor.page.goto(url)
            if name is not None:
                await visitor.sign_in(name)
            yield visitor
            assert visitor.problems == []
        finally:
            await context.close()

    async def sign_in(self, name: str) -> None:
        """Sign in and wait for the live connection."""
        await self.page.get_by_label("Your name").fill(name)
        await self.page.get_by_role("button", name="Sign in").click()
        await self.is_live()

    async def is_live(self) -> None:
        """Wait until the connection is open."""
        await expect(self.page.locator("#connection[data-state=open]")).to_be_visible()

    # Rooms ----------------------------------------------------------------------------------------------------------

    async def create_room(self, name: str, type_: str = "Public", description: str = "", invite: str = "") -> None:
        """Create a room and wait until it is open."""
        await self.page.get_by_role("button", name="New room").click()
        dialog = self.page.get_by_role("dialog")
        await dialog.get_by_label("Name").fill(name)
        await dialog.get_by_label("Description").fill(description)
        await dialog.get_by_label(type_).check()
        await dialog.get_by_label("Invite").fill(invite)
        await dialog.get_by_role("button", name="Create room").click()
        await expect(self.title()).to_have_text(name)

    async def open_room(self, name: str) -> None:
        """Find a room by search and open it."""
        search = self.page.get_by_role("searchbox", name="Search rooms")
        await search.fill(name)
        found = self.page.get_by_role("list", name="Found")
        await found.locator("button.room", has_text=name).first.click()
        await expect(self.title()).to_have_text(name)
        await search.fill("")

    def room(self, name: str) -> Locator:
        """Return a room's entry in the list."""
        return self.page.locator("button.room", has_text=name)

    def title(self) -> Locator:
        """Return the name of the open conversation."""
        return self.page.locator(".chat-title")

    # Messages -------------------------------------------------------------------------------------------------------

    async def say(self, text: str) -> None:
        """Type a message and send it with Enter."""
        box = self.page.locator("#composer-text")
        await box.fill(text)
        await box.press("Enter")

    def messages(self) -> Locator:
        """Return the texts of the stored messages."""
        return self.page.locator(".message[data-seq] .message-text")

    async def sees_message(self, text: str) -> None:
        """Wait for a message with exactly this text."""
        await expect(self.messages().get_by_text(text, exact=True)).to_be_visible()

    async def texts(self) -> list[str]:
        """Return the texts of all displayed messages."""
        return await self.messages().all_inner_texts()
