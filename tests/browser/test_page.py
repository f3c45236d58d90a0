"""The web page: history, prices, alerts, keyboard, small screens, accessibility."""

import pytest
from axe_playwright_python.async_playwright import Axe  # type: ignore[import-untyped]
from playwright.async_api import Browser, expect

from tests.support.browser import DESKTOP, PHONE, Scheme, Visitor
from tests.support.live_client import LiveClient, RestClient
from tests.support.tokens import mint


async def test_history_scrolls_to_start_and_marks_new_messages(browser: Browser, url: str) -> None:
    writer = RestClient(url, "user_writer", firstName="Wanda", lastName="Writer")
    room = await writer.create_room("Long History")
    reader = RestClient(url, "user_rita_reader", firstName="Rita", lastName="Reader")
    await reader.data("POST", f"/v1/chatrooms/{room}/join")
    async with await LiveClient.as_user(url, "user_writer", firstName="Wanda", lastName="Writer") as live:
        for number in range(1, 91):
            await live.send("chat:send", chatroomId=room, message=f"message {number}")
        await live.take(lambda frame: frame["type"] == "chat:ack" and frame["data"]["seq"] == 90)
    await reader.data("POST", f"/v1/chatrooms/{room}/read", json={"seq": 85})
    async with Visitor.arrive(browser, url, "Rita Reader") as rita:
        await expect(rita.room("Long History").locator(".badge")).to_have_text("5 unread")
        await rita.open_room("Long History")
        await rita.sees_message("message 90")
        after_divider = rita.page.locator(".unread-line + .message .message-text")
        await expect(after_divider).to_have_text("message 86")
        await expect(rita.room("Long History").locator(".badge")).to_have_count(0)
        await rita.page.locator(".scroll").evaluate("element => { element.scrollTop = 0; }")
        await expect(rita.messages()).to_have_count(90)
        assert await rita.texts() == [f"message {number}" for number in range(1, 91)]
        await expect(rita.page.get_by_role("button", name="Earlier messages")).to_be_hidden()


async def test_prices_candles_and_alert_are_shown(browser: Browser, url: str) -> None:
    async with Visitor.arrive(browser, url, "Gita Rao") as gita:
        market = gita.page.get_by_role("region", name="Markets")
        await expect(market.locator("tbody tr")).to_have_count(14)
        price = market.locator("tr", has=gita.page.get_by_role("button", name="BTC/USD")).locator(".price")
        before = await price.inner_text()
        await expect(price).not_to_have_text(before)
        await market.get_by_role("button", name="XAU/USD").click()
        await expect(market.locator(".chosen")).to_have_text("XAU/USD")
        await expect(market.locator(".candles .body").first).to_be_visible()
        await market.get_by_label("Price", exact=True).fill("1")
        await market.get_by_role("button", name="Set alert").click()
        await expect(market.locator(".alert.fired")).to_contain_text("XAU/USD above 1.00")
        bell = gita.page.get_by_role("button", name="Notifications, 1 unread")
        await bell.click()
        inbox = gita.page.get_by_role("dialog", name="Notifications")
        await expect(inbox.locator(".notice")).to_contain_text("XAU/USD")
        await inbox.get_by_role("button", name="Mark all as read").click()
        await expect(inbox.locator(".is-unread")).to_have_count(0)
        await gita.page.keyboard.press("Escape")
        await expect(gita.page.get_by_role("button", name="Notifications", exact=True)).to_be_focused()


async def test_every_control_is_reachable_by_keyboard(browser: Browser, url: str) -> None:
    await RestClient(url, "user_keys").create_room("Keyboard Club")
    async with Visitor.arrive(browser, url) as hana:
        press, focused = hana.page.keyboard.press, hana.page.locator(":focus")
        await hana.page.keyboard.type("Hana Sato")
        await press("Enter")
        await hana.is_live()
        await press("Control+k")
        await hana.page.keyboard.type("keyb")
        await expect(hana.page.get_by_role("heading", name="Found")).to_be_visible()
        await expect(hana.room("Keyboard Club")).to_be_visible()
        await press("ArrowDown")
        await expect(focused).to_contain_text("Keyboard Club")
        await press("Enter")
        await expect(hana.page.locator("#composer-text")).to_be_focused()
        await hana.page.keyboard.type("typed only")
        await press("Enter")
        await hana.sees_message("typed only")
        members = hana.page.get_by_role("button", name="Members", exact=True)
        await members.focus()
        await press("Enter")
        await expect(hana.page.get_by_role("dialog", name="Members")).to_contain_text("Hana Sato")
        await press("Escape")
        await expect(members).to_be_focused()
        await hana.page.get_by_role("button", name="EUR/USD", exact=True).focus()
        await press("ArrowDown")
        await press("Enter")
        await expect(hana.page.locator(".chosen")).to_have_text(await focused.inner_text())
        outline = await focused.evaluate("element => getComputedStyle(element).outlineStyle")
        assert outline == "solid"


async def test_first_tab_stop_skips_to_conversation(browser: Browser, url: str) -> None:
    async with Visitor.arrive(browser, url, "Ida Berg") as ida:
        await ida.page.reload()
        await ida.is_live()
        await ida.page.keyboard.press("Tab")
        await expect(ida.page.locator(":focus")).to_have_text("Skip to the conversation")
        await ida.page.keyboard.press("Enter")
        await expect(ida.page.locator("#chat")).to_be_focused()


async def test_phone_layout_scrolls_vertically_only(browser: Browser, url: str) -> None:
    async with Visitor.arrive(browser, url, "Jo " + "Longname" * 5, size=PHONE) as jo:
        await jo.create_room("A room with a name that is rather longer than any telephone is wide, by far")
        await jo.say("W" * 400)
        await jo.sees_message("W" * 400)
        for pane in ("Rooms", "Chat", "Markets"):
            await jo.page.get_by_role("navigation", name="Views").get_by_role("button", name=pane).click()
            assert await overflow(jo) == []
        for opener in ("#bell", "#connection", "#account"):
            await jo.page.locator(opener).click()
            assert await overflow(jo) == []
            await jo.page.keyboard.press("Escape")


async def overflow(visitor: Visitor) -> list[str]:
    """Return the elements that overflow the page horizontally without being clipped on purpose."""
    found: list[str] = await visitor.page.evaluate(
        """() => [document.scrollingElement, ...document.querySelectorAll(".pane, .scroll, .market-scroll, dialog")]
            .filter((element) => element.offsetParent !== null || element === document.scrollingElement)
            .filter((element) => element.scrollWidth > element.clientWidth)
            .map((element) => `${element.tagName}.${element.className} ${element.scrollWidth}`)"""
    )
    return found


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
async def test_axe_finds_no_accessibility_violation(
    browser: Browser, url: str, size: tuple[int, int], scheme: Scheme
) -> None:
    """Run all axe-core rules for WCAG A and AA, contrast included. The policy is off, since axe is injected."""
    async with Visitor.arrive(browser, url, size=size, scheme=scheme, bypass_csp=True) as kai:
        await expect(kai.page.get_by_label("Your name")).to_be_visible()
        found = [await complaints(kai)]
        await kai.sign_in("Kai Holm")
        await kai.create_room(f"Contrast {scheme} {size[0]}")
        await kai.say("Readable?")
        await kai.sees_message("Readable?")
        await expect(kai.page.locator("tbody tr")).to_have_count(14)
        views = ("Rooms", "Chat", "Markets") if size == PHONE else ()
        for pane in views or (None,):
            if pane is not None:
                await kai.page.get_by_role("navigation", name="Views").get_by_role("button", name=pane).click()
            found.append(await complaints(kai))
        for opener in ("#bell", "#connection"):
            await kai.page.locator(opener).click()
            found.append(await complaints(kai))
            await kai.page.keyboard.press("Escape")
        assert "".join(found) == ""


async def complaints(visitor: Visitor) -> str:
    """Return the findings of axe-core in the current page, or an empty text."""
    results = await Axe().run(visitor.page)
    return str(results.generate_report()) if results.violations_count else ""


async def test_pasted_token_signs_in(browser: Browser, url: str) -> None:
    signed = mint("user_tove", firstName="Tove", lastName="Sand")
    async with Visitor.arrive(browser, url) as tove:
        await tove.sign_in(signed)
        await expect(tove.page.locator("#account")).to_have_attribute("aria-label", "Account: Tove Sand")
