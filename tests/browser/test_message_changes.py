"""Two users in two browsers: edits, deletions, reactions, replies, pins and mentions reach the other page."""

import re
from collections.abc import AsyncIterator
from typing import NamedTuple

import pytest
from playwright.async_api import Browser, Locator, expect

from tests.support.browser import Visitor
from tests.support.live_client import RestClient
from tests.support.local_system import LocalSystem

ADA, BEN = "user_ada_lovelace", "user_ben_carter"


class Pair(NamedTuple):
    """Two users in one room; the first has created it."""

    ada: Visitor
    ben: Visitor


@pytest.fixture(scope="module")
async def signed_in(browser: Browser, system: LocalSystem) -> AsyncIterator[Pair]:
    """Yield two visitors, who stay signed in for all tests."""
    url = system.entries()["GATEWAY_URL"]
    async with Visitor.arrive(browser, url, "Ada Lovelace") as ada, Visitor.arrive(browser, url, "Ben Carter") as ben:
        yield Pair(ada, ben)


@pytest.fixture
async def pair(signed_in: Pair, url: str, request: pytest.FixtureRequest) -> Pair:
    """Return the two visitors, with fresh pages, in a new room named after the test."""
    name = request.node.name.removeprefix("test_").replace("_", " ").capitalize()[:60]
    for visitor in signed_in:
        await visitor.page.goto("about:blank")
        await visitor.page.goto(url)
        await visitor.is_live()
    ada, ben = signed_in
    await ada.create_room(name)
    await ben.open_room(name)
    await ben.page.get_by_role("button", name="Join").click()
    await expect(ada.page.locator(".chat-head")).to_contain_text("2 members")
    return signed_in


def message(visitor: Visitor, text: str) -> Locator:
    """Return the message that contains a text."""
    return visitor.page.locator(".message[data-seq]", has_text=text)


async def act(visitor: Visitor, text: str, label: str) -> None:
    """Use a button of the toolbar that appears under the pointer."""
    shown = message(visitor, text).first
    await shown.hover()
    await shown.get_by_role("toolbar").get_by_role("button", name=label, exact=True).click()


async def test_edit_reaches_other_page_with_its_time(pair: Pair) -> None:
    ada, ben = pair
    await ada.say("Gold at 2391")
    await ben.sees_message("Gold at 2391")
    await ada.page.keyboard.press("ArrowUp")
    await expect(ada.page.locator(".compose-bar")).to_contain_text("Edit message")
    await ada.say("Gold at 2,391")
    await ben.sees_message("Gold at 2,391")
    await expect(message(ben, "2,391").locator(".edited")).to_have_attribute("title", re.compile("^Edited "))
    await expect(ada.page.locator("#composer-text")).to_have_value("")
    assert await ben.texts() == ["Gold at 2,391"]
    await message(ben, "2,391").hover()
    await expect(message(ben, "2,391").get_by_role("button", name="Edit")).to_have_count(0)


async def test_escape_cancels_edit_and_restores_draft(pair: Pair) -> None:
    ada, _ = pair
    await ada.say("first")
    await ada.sees_message("first")
    box = ada.page.locator("#composer-text")
    await box.fill("half a thought")
    await act(ada, "first", "Edit")
    await expect(box).to_have_value("first")
    await box.press("Escape")
    await expect(box).to_have_value("half a thought")
    await expect(ada.page.locator(".compose-bar")).to_be_hidden()


async def test_deletion_makes_tombstone_and_empties_quote(pair: Pair) -> None:
    ada, ben = pair
    await ben.say("a wrong number")
    await ada.sees_message("a wrong number")
    await act(ada, "a wrong number", "Reply")
    await ada.say("Really?")
    await ben.sees_message("Really?")
    quoted = message(ben, "Really?").locator(".quote")
    await expect(quoted).to_contain_text("a wrong number")
    await act(ada, "a wrong number", "Delete")  # as the creator of the room
    await ada.page.get_by_role("button", name="Delete message").click()
    for visitor in pair:
        await expect(visitor.page.locator(".is-deleted")).to_have_text("Message deleted")
        await expect(message(visitor, "Really?").locator(".quote-text")).to_have_text("Attachment or deleted message")
        await expect(visitor.page.get_by_text("a wrong number")).to_have_count(0)
    await expect(ben.page.locator(".is-deleted")).to_have_attribute("title", re.compile("^Deleted by Ada Lovelace"))
    await ben.page.reload()
    await ben.is_live()
    await ben.open_room("Deletion makes tombstone and empties quote")
    await expect(ben.page.locator(".is-deleted")).to_have_text("Message deleted")


async def test_reactions_count_and_toggle(pair: Pair) -> None:
    ada, ben = pair
    await ada.say("Long at 1.0850?")
    await ben.sees_message("Long at 1.0850?")
    await act(ben, "Long at", "React")
    await ben.page.get_by_role("dialog").get_by_role("button", name="thumbs up").click()
    theirs = ada.page.get_by_role("button", name="👍, 1", exact=True)
    await expect(theirs).to_have_attribute("aria-pressed", "false")
    await theirs.hover()
    await expect(theirs).to_have_attribute("title", "Ben Carter reacted with 👍")
    await theirs.click()
    both = ada.page.get_by_role("button", name="👍, 2, you reacted")
    await expect(both).to_have_attribute("aria-pressed", "true")
    await expect(ben.page.get_by_role("button", name="👍, 2, you reacted")).to_be_visible()
    await both.click()
    await expect(theirs).to_have_attribute("aria-pressed", "false")
    await ada.page.get_by_role("button", name="Add a reaction").click()
    await ada.page.get_by_label("Any emoji or :name:").fill("nonsense")
    await ada.page.keyboard.press("Enter")
    await expect(ada.page.get_by_role("dialog").get_by_role("alert")).not_to_be_empty()
    await ada.page.get_by_label("Any emoji or :name:").fill(":party_parrot:")
    await ada.page.keyboard.press("Enter")
    await expect(ben.page.get_by_role("button", name=":party_parrot:, 1", exact=True)).to_be_visible()
    await ada.page.reload()
    await ada.is_live()
    await ada.open_room("Reactions count and toggle")
    await expect(ada.page.get_by_role("button", name=":party_parrot:, 1, you reacted")).to_be_visible()


async def test_changes_count_as_nothing_unread(pair: Pair) -> None:
    ada, ben = pair
    await ada.say("quiet please")
    await ben.sees_message("quiet please")
    await ben.create_room("Somewhere else")
    await act(ada, "quiet please", "React")
    await ada.page.get_by_role("dialog").get_by_role("button", name="fire").click()
    await expect(ada.page.get_by_role("button", name="🔥, 1, you reacted")).to_be_visible()
    await act(ada, "quiet please", "Edit")
    await ada.say("quiet, please")
    await ada.sees_message("quiet, please")
    room = ben.room("Changes count as nothing unread")
    await expect(room.locator(".badge")).to_have_count(0)
    await ada.say("this one counts")
    await expect(room.locator(".badge")).to_have_text("1 unread")
    await expect(ben.page).to_have_title("(1) Realtime")
    await room.click()
    await ben.sees_message("quiet, please")
    await expect(ben.page.locator(".unread-line + .message .message-text")).to_have_text("this one counts")
    await expect(ben.page).to_have_title("Realtime")


async def test_pins_are_listed_and_unpinned(pair: Pair) -> None:
    ada, ben = pair
    await ada.say("Rules: be kind")
    await ben.sees_message("Rules: be kind")
    await message(ben, "Rules").hover()
    await expect(message(ben, "Rules").get_by_role("button", name="Pin", exact=True)).to_have_count(0)
    await act(ada, "Rules", "Pin")
    for visitor in pair:
        await expect(message(visitor, "Rules").locator(".pin-mark")).to_be_visible()
    await ben.page.get_by_role("button", name="Pinned messages, 1").click()
    pins = ben.page.get_by_role("dialog", name="Pinned messages")
    await expect(pins).to_contain_text("Pinned by Ada Lovelace")
    await expect(pins.get_by_role("button", name="Unpin")).to_have_count(0)
    await pins.get_by_role("button", name="Rules: be kind").click()
    await expect(message(ben, "Rules")).to_be_focused()
    await ada.page.get_by_role("button", name="Pinned messages, 1").click()
    await ada.page.get_by_role("dialog").get_by_role("button", name="Unpin").click()
    await expect(ben.page.get_by_role("button", name="Pinned messages")).to_have_count(0)


async def test_mention_is_chosen_by_keyboard_and_highlighted(pair: Pair) -> None:
    ada, ben = pair
    box = ada.page.locator("#composer-text")
    await box.press_sequentially("Ask @be")
    options = ada.page.get_by_role("listbox", name="Members to mention")
    await expect(options.get_by_role("option")).to_have_count(1)
    await expect(box).to_have_attribute("aria-activedescendant", "mention-0")
    await box.press("Enter")
    await expect(box).to_have_value("Ask @Ben Carter ")
    await box.press_sequentially("or @ro")
    await box.press("Tab")
    await box.press("Enter")
    await ben.sees_message("Ask @Ben Carter or @room")
    mine = message(ben, "Ask")
    await expect(mine.locator(".mention.of-me").first).to_have_text("@Ben Carter")
    await expect(mine.locator(".mention.of-me").last).to_have_text("@room")
    await expect(ben.page.locator(".message.mentions-me")).to_have_count(1)
    await ben.page.locator("#composer-text").press_sequentially("@ro")
    await expect(ben.page.get_by_role("option", name="everybody")).to_have_count(0)  # a plain member


async def test_deleted_text_is_gone_from_reply_bar_search_and_pins(pair: Pair, url: str) -> None:
    ada, ben = pair
    for text in ("sell everything", "sell nothing"):
        await ben.say(text)
        await ada.sees_message(text)
        await act(ada, text, "Pin")
        await act(ada, text, "Reply")
    await act(ada, "sell everything", "Reply")
    await expect(ada.page.locator(".compose-text")).to_have_text("sell everything")
    await ada.page.get_by_role("button", name="Search messages").click()
    await ada.page.keyboard.type("sell")
    results = ada.page.get_by_role("dialog", name="Search messages")
    await expect(results.get_by_role("status")).to_have_text("2 messages")
    await ben.page.get_by_role("button", name="Pinned messages, 2").click()
    pins = ben.page.get_by_role("dialog", name="Pinned messages")
    await expect(pins.locator(".result")).to_have_count(2)
    await change_elsewhere(url, BEN, "sell nothing", "PATCH", message="sell a little")
    for listed in (results, pins):
        await expect(listed.get_by_role("button", name="sell a little")).to_be_visible()
    await change_elsewhere(url, BEN, "sell everything", "DELETE")
    await expect(results.get_by_role("status")).to_have_text("1 message")
    await expect(ada.page.locator(".compose-text")).to_have_text("Message deleted")
    await expect(pins.locator(".result")).to_have_count(1)
    for visitor in pair:
        await expect(visitor.page.get_by_text("sell everything")).to_have_count(0)
    await results.get_by_role("button", name="Close").click()
    await ada.say("answered anyway")
    await expect(message(ada, "answered anyway").locator(".quote-text")).to_have_text("Attachment or deleted message")


async def test_deletion_ends_edit_and_confirmation(pair: Pair, url: str) -> None:
    ada, ben = pair
    await ben.say("a rumour")
    await ada.sees_message("a rumour")
    box = ben.page.locator("#composer-text")
    await box.fill("half a thought")
    await act(ben, "a rumour", "Edit")
    await expect(box).to_have_value("a rumour")
    await act(ada, "a rumour", "Delete")
    question = ada.page.get_by_role("dialog", name="Delete this message?")
    await expect(question).to_contain_text("a rumour")
    await change_elsewhere(url, BEN, "a rumour", "DELETE")
    await expect(question).to_have_count(0)
    await expect(box).to_have_value("half a thought")
    await expect(ben.page.locator(".compose-bar")).to_be_hidden()
    for visitor in pair:
        await expect(visitor.page.get_by_text("a rumour")).to_have_count(0)


async def test_deleted_mention_loses_its_text_in_the_bell(pair: Pair, url: str) -> None:
    ada, ben = pair
    await ada.page.locator("#composer-text").press_sequentially("@be")
    await ada.page.keyboard.press("Enter")
    await ada.page.locator("#composer-text").press_sequentially("buy now")
    await ada.page.keyboard.press("Enter")
    await ben.sees_message("@Ben Carter buy now")
    toast = ben.page.locator(".toast", has_text="buy now")
    await expect(toast).to_be_visible()
    await ben.page.locator("#bell").click()
    notice = ben.page.get_by_role("dialog", name="Notifications").locator(".notice-text").first
    await expect(notice).to_have_text("@Ben Carter buy now")
    await change_elsewhere(url, ADA, "buy now", "DELETE")
    await expect(notice).to_have_text("Attachment or deleted message")
    await expect(toast).to_have_count(0)
    await expect(ben.page.get_by_text("buy now")).to_have_count(0)


async def change_elsewhere(url: str, user_id: str, text: str, method: str, **body: str) -> None:
    """Edit or delete a message of the most recently active room, as its author may on another device."""
    author = RestClient(url, user_id)
    [room] = await author.data("GET", "/v1/chatrooms?limit=1")
    path = f"/v1/chatrooms/{room['id']}/messages"
    [found] = [message["id"] for message in await author.data("GET", path) if text in message["message"]]
    await author.data(method, f"{path}/{found}", json=body)
