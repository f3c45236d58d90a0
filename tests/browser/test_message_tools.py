"""Finding, quoting and handling messages: jumps, search, links, attachments, keyboard and touch, accessibility."""

import pytest
from playwright.async_api import Browser, Locator, Page, Route, expect

from tests.browser.test_page import complaints, overflow
from tests.support.browser import DESKTOP, PHONE, Scheme, Visitor
from tests.support.live_client import LiveClient, RestClient

PASTE = """text => {
    const clipboardData = new DataTransfer();
    clipboardData.setData("text/plain", text);
    const event = new ClipboardEvent("paste", { clipboardData, bubbles: true, cancelable: true });
    document.querySelector("#composer-text").dispatchEvent(event);
}"""
MESSAGES_OF_ONE = 80
# A picture of one pixel.
PIXEL = bytes.fromhex("47494638396101000100800000000000ffffff21f90401000000002c00000000010001000002024401003b")


async def long_room(url: str, name: str, count: int) -> tuple[RestClient, str, list[str]]:
    """Create a room with numbered messages, and return its creator, its id and the ids of the messages."""
    user = "user_" + name.lower().replace(" ", "_")
    writer = RestClient(url, user, firstName="Wanda", lastName="Writer")
    room = await writer.create_room(name)
    for start in range(1, count + 1, MESSAGES_OF_ONE):  # a user may send only so many at once
        await write(url, f"{user}_{start}", room, start, min(start + MESSAGES_OF_ONE - 1, count))
    page = await writer.data("GET", f"/v1/chatrooms/{room}/messages?limit=100&before=101")
    return writer, room, [message["id"] for message in reversed(page)]


async def write(url: str, user: str, room: str, first: int, last: int) -> None:
    """Send messages with the numbers from `first` to `last`."""
    async with await LiveClient.as_user(url, user, firstName="Will", lastName="Writer") as live:
        for number in range(first, last + 1):
            await live.send("chat:send", chatroomId=room, message=f"message {number}")
        await live.take(lambda frame: frame["type"] == "chat:ack" and frame["data"]["seq"] == last)


def by_seq(visitor: Visitor, seq: int) -> Locator:
    """Return a displayed message."""
    return visitor.page.locator(f".message[data-seq='{seq}']")


async def test_quote_jumps_to_unloaded_original_and_back(browser: Browser, url: str) -> None:
    writer, room, ids = await long_room(url, "Far Back", 150)
    await writer.data("POST", f"/v1/chatrooms/{room}/messages", json={"message": "as I said", "replyTo": ids[9]})
    async with Visitor.arrive(browser, url, "Nora Quist") as nora:
        await nora.open_room("Far Back")
        await nora.page.get_by_role("button", name="In reply to").click()
        await expect(by_seq(nora, 10)).to_be_focused()
        await expect(by_seq(nora, 10)).to_be_in_viewport()
        await expect(by_seq(nora, 151)).to_have_count(0)
        newest = nora.page.get_by_role("button", name="Newest")
        await expect(newest).to_be_visible()
        await writer.data("POST", f"/v1/chatrooms/{room}/messages", json={"message": "meanwhile"})
        await nora.page.get_by_role("button", name="1 new message").click()
        await nora.sees_message("meanwhile")
        await expect(nora.page.locator(".jump")).to_be_hidden()
        await expect(by_seq(nora, 10)).to_have_count(0)


async def test_history_around_a_jump_loads_to_the_newest(browser: Browser, url: str) -> None:
    _, room, ids = await long_room(url, "Both Ends", 140)
    async with Visitor.arrive(browser, url, "Nora Quist") as nora:
        await nora.page.goto(f"{url}/#/rooms/{room}/{ids[39]}")
        await expect(by_seq(nora, 40)).to_be_focused()
        await expect(nora.page).to_have_url(f"{url}/")
        scroll = nora.page.locator(".scroll")
        before = await nora.messages().count()  # read first: more may load at any time
        while await by_seq(nora, 140).count() == 0:
            await scroll.evaluate("element => { element.scrollTop = element.scrollHeight; }")
            await expect(nora.messages()).not_to_have_count(before)
            before = await nora.messages().count()
        await nora.say("to the end")
        await nora.sees_message("to the end")


async def test_search_finds_message_and_jumps_to_it(browser: Browser, url: str) -> None:
    writer, room, _ = await long_room(url, "Needle", 30)
    await writer.data("POST", f"/v1/chatrooms/{room}/messages", json={"message": "a needle, sharp"})
    for number in range(55):
        await writer.data("POST", f"/v1/chatrooms/{room}/messages", json={"message": f"hay {number}"})
    async with Visitor.arrive(browser, url, "Nora Quist") as nora:
        await nora.open_room("Needle")
        await nora.sees_message("hay 54")
        await nora.page.get_by_role("button", name="Search messages").click()
        dialog = nora.page.get_by_role("dialog", name="Search messages")
        await expect(dialog.get_by_role("searchbox")).to_be_focused()
        await nora.page.keyboard.type("needl")
        await expect(dialog.get_by_role("status")).to_have_text("1 message")
        await dialog.get_by_role("button", name="a needle, sharp").click()
        await expect(by_seq(nora, 31)).to_be_focused()
        await nora.page.get_by_role("button", name="Search messages").click()
        await nora.page.keyboard.type("haystack")
        await expect(dialog.get_by_role("status")).to_have_text("No message has these words.")


async def test_new_messages_are_counted_away_from_the_bottom(browser: Browser, url: str) -> None:
    writer, room, _ = await long_room(url, "Counting", 60)
    async with Visitor.arrive(browser, url, "Nora Quist") as nora:
        await nora.open_room("Counting")
        await nora.page.get_by_role("button", name="Join").click()
        await nora.sees_message("message 60")
        await nora.page.locator(".scroll").evaluate("element => { element.scrollTop -= 700; }")
        await expect(nora.page.get_by_role("button", name="Newest")).to_be_visible()
        for text in ("one", "two"):
            await writer.data("POST", f"/v1/chatrooms/{room}/messages", json={"message": text})
        await nora.page.get_by_role("button", name="2 new messages").click()
        await nora.sees_message("two")
        await expect(nora.room("Counting").locator(".badge")).to_have_count(0)


async def test_pasted_addresses_are_attached_and_loaded_on_request_only(browser: Browser, url: str) -> None:
    asked: list[str] = []

    async def picture(route: Route) -> None:
        asked.append(route.request.url)
        await route.fulfill(body=PIXEL, content_type="image/gif")

    async with Visitor.arrive(browser, url, "Pia Lund") as pia:
        await pia.page.route("https://charts.example/**", picture)
        await pia.create_room("Pictures")
        for address in ("https://charts.example/gold.png", "https://news.example/story", "https://drop.example/me"):
            await pia.page.evaluate(PASTE, address)
        await expect(pia.page.locator(".attachment-chip")).to_have_count(3)
        await pia.page.get_by_role("button", name="Remove drop.example/…/me").click()
        await pia.page.locator("#composer-text").press("Enter")
        cards = pia.page.locator(".message[data-seq] .attachment-card")
        await expect(cards).to_have_count(2)
        await expect(pia.page.locator(".attachment-chip")).to_have_count(0)
        link = cards.first.get_by_role("link")
        assert await link.get_attribute("rel") == "noopener noreferrer"
        assert await link.get_attribute("target") == "_blank"
        assert asked == []
        await cards.first.get_by_role("button", name="Show gold.png").click()
        await expect(cards.first.get_by_role("img", name="gold.png")).to_be_visible()
        assert asked == ["https://charts.example/gold.png"]


async def test_message_is_handled_by_keyboard_alone(browser: Browser, url: str) -> None:
    async with Visitor.arrive(browser, url, "Hana Sato") as hana:
        await hana.create_room("Hands on keys")
        for text in ("first", "second"):
            await hana.say(text)
            await hana.sees_message(text)
        press = hana.page.keyboard.press
        await press("Shift+Tab")
        await expect(by_seq(hana, 2)).to_be_focused()
        await press("ArrowUp")
        await press("Enter")
        focused = hana.page.locator(":focus")
        await expect(focused).to_have_attribute("aria-label", "React")
        await press("Enter")
        await press("ArrowRight")
        await press("Enter")
        await expect(hana.page.get_by_role("button", name="👎, 1, you reacted")).to_be_visible()
        await expect(focused).to_have_attribute("aria-label", "React")
        await press("ArrowRight")
        await press("Enter")
        await expect(hana.page.locator(".compose-bar")).to_contain_text("Reply to Hana Sato")
        await hana.page.keyboard.type("answered")
        await press("Enter")
        await expect(by_seq(hana, 3).locator(".quote")).to_contain_text("first")
        await by_seq(hana, 2).focus()
        await press("Enter")
        await press("Escape")
        await expect(by_seq(hana, 2)).to_be_focused()


async def test_long_press_opens_actions(browser: Browser, url: str) -> None:
    async with Visitor.arrive(browser, url, "Timo Aho", size=PHONE, has_touch=True, is_mobile=True) as timo:
        await timo.create_room("Thumbs")
        await timo.say("press me")
        await timo.sees_message("press me")
        await long_press(timo.page, by_seq(timo, 1))
        sheet = timo.page.get_by_role("dialog", name="Message of Timo Aho")
        await sheet.get_by_role("button", name="heart").tap()
        await expect(timo.page.get_by_role("button", name="❤️, 1, you reacted")).to_be_visible()
        await long_press(timo.page, by_seq(timo, 1))
        await sheet.get_by_role("button", name="Edit").tap()
        await timo.say("pressed")
        await timo.sees_message("pressed")
        await long_press(timo.page, by_seq(timo, 1))
        await sheet.get_by_role("button", name="Delete").tap()
        await timo.page.get_by_role("button", name="Delete message").tap()
        await expect(timo.page.locator(".is-deleted")).to_be_visible()


async def long_press(page: Page, element: Locator) -> None:
    """Keep a finger on an element until the sheet is open."""
    box = await element.bounding_box()
    assert box is not None
    at = {"x": box["x"] + 150, "y": box["y"] + box["height"] / 2}
    session = await page.context.new_cdp_session(page)
    await session.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [at]})
    await expect(page.get_by_role("dialog")).to_be_visible()
    await session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
async def test_messages_are_accessible_and_fit(
    browser: Browser, url: str, size: tuple[int, int], scheme: Scheme
) -> None:
    name = f"Rich {scheme} {size[0]}"
    wanda = RestClient(url, "user_wanda_writer", firstName="Wanda", lastName="Writer")
    room = await wanda.create_room(name)
    messages = f"/v1/chatrooms/{room}/messages"
    address = "https://example.com/" + "long/" * 40
    first = await wanda.data("POST", messages, json={"message": f"Look: {address}"})
    attachments = [{"kind": "image", "url": "https://example.com/a.png", "name": "W" * 200}]
    rich = {
        "message": "@Kai Holm and @room, see below",
        "replyTo": first["id"],
        "mentions": ["user_kai_holm"],
        "mentionRoom": True,
        "attachments": attachments,
    }
    second = await wanda.data("POST", messages, json=rich)
    await wanda.data("PATCH", f"{messages}/{first['id']}", json={"message": f"Look again: {address}"})
    await wanda.data("PUT", f"{messages}/{second['id']}/reactions/%F0%9F%91%8D")
    await wanda.data("PUT", f"{messages}/{second['id']}/reactions/:{'w' * 32}:")
    await wanda.data("PUT", f"/v1/chatrooms/{room}/pins/{second['id']}")
    gone = await wanda.data("POST", messages, json={"message": "gone"})
    await wanda.data("DELETE", f"{messages}/{gone['id']}")
    async with Visitor.arrive(browser, url, "Kai Holm", size=size, scheme=scheme, bypass_csp=True) as kai:
        await kai.page.goto(f"{url}/#/rooms/{room}")
        await kai.page.get_by_role("button", name="👍, 1", exact=True).click()
        await expect(kai.page.get_by_role("button", name="👍, 2, you reacted")).to_be_visible()
        await by_seq(kai, 2).focus()
        await kai.page.keyboard.press("Enter")
        found = [await complaints(kai), *await overflow(kai)]
        await by_seq(kai, 2).get_by_role("toolbar").get_by_role("button", name="Reply").click()
        await kai.page.evaluate(PASTE, "https://example.com/" + "w" * 300 + ".png")
        await kai.page.keyboard.type("@wan")
        await expect(kai.page.get_by_role("listbox", name="Members").get_by_role("option")).to_have_count(1)
        found += [await complaints(kai), *await overflow(kai)]
        await kai.page.keyboard.press("Escape")
        for opener in ("Pinned messages, 1", "Search messages", "Add a reaction"):
            await kai.page.get_by_role("button", name=opener).click()
            await expect(kai.page.get_by_role("dialog")).to_be_visible()
            found += [await complaints(kai), *await overflow(kai)]
            await kai.page.keyboard.press("Escape")
        assert "".join(found) == ""
