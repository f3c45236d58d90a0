"""The room list: unread messages and mentions of rooms that are not open, and which rooms the page subscribes to."""

import json
import re
from typing import Any

from playwright.async_api import Browser, Route, WebSocket, expect

from tests.browser.test_message_tools import by_seq, long_room
from tests.browser.test_page import complaints
from tests.support.browser import PHONE, Visitor
from tests.support.live_client import RestClient

WANDA = "user_wanda_writer"


def wanda(url: str) -> RestClient:
    """Return a caller who writes in the rooms of other users."""
    return RestClient(url, WANDA, firstName="Wanda", lastName="Writer")


async def rooms_of(url: str, member: str, *names: str) -> dict[str, str]:
    """Create rooms of Wanda's with one more member; return their ids by name."""
    caller = wanda(url)
    return {name: await caller.create_room(name, "private", memberIds=[member]) for name in names}


async def say(url: str, room: str, text: str, **fields: Any) -> Any:
    """Send a message of Wanda's."""
    return await wanda(url).data("POST", f"/v1/chatrooms/{room}/messages", json={"message": text, **fields})


class Frames:
    """The client frames of a page."""

    def __init__(self, visitor: Visitor) -> None:
        self._frames: list[Any] = []
        visitor.page.on("websocket", self._listen)

    def _listen(self, socket: WebSocket) -> None:
        socket.on("framesent", lambda payload: self._frames.append(json.loads(payload)))

    def rooms(self, type_: str = "subscribe") -> list[str]:
        """Return the rooms of all subscriptions, in order, those that came with `auth` included."""
        named = [frame for frame in self._frames if frame["type"] == type_]
        if type_ == "subscribe":
            named = [entry for frame in self._frames for entry in frame.get("subscriptions", [])] + named
        return [entry["chatroomId"] for entry in named if entry["channel"] == "chatroom"]


async def test_unopened_rooms_show_unread_messages_and_mentions(browser: Browser, url: str) -> None:
    rooms = await rooms_of(url, "user_lena_falk", "Quiet Corner", "Loud Corner")
    async with Visitor.arrive(browser, url) as lena:
        frames = Frames(lena)
        await lena.sign_in("Lena Falk")
        await expect(lena.room("Loud Corner")).to_be_visible()
        await say(url, rooms["Quiet Corner"], "morning")
        await expect(lena.room("Quiet Corner").locator(".badge")).to_have_text("1 unread")
        await say(url, rooms["Loud Corner"], "Lena?", mentions=["user_lena_falk"])
        await say(url, rooms["Loud Corner"], "anybody?", mentionRoom=True)
        await expect(lena.room("Loud Corner").locator(".badge")).to_have_text("2 unread")
        await expect(lena.room("Loud Corner").locator(".mention-badge")).to_have_text("@22 mentions of you, ")
        read_out = re.compile("Loud Corner.*2 mentions of you, 2 unread")
        await expect(lena.page.get_by_role("button", name=read_out)).to_be_visible()
        await expect(lena.page).to_have_title("(3, @2) Realtime")
        names = lena.page.get_by_role("list", name="Your rooms").locator(".room-name")
        await expect(names).to_have_text(["Loud Corner", "Quiet Corner"])
        assert frames.rooms() == []
        await lena.room("Loud Corner").click()
        await lena.sees_message("anybody?")
        await expect(lena.room("Loud Corner").locator(".badge, .mention-badge")).to_have_count(0)
        await expect(lena.page).to_have_title("(1) Realtime")
        await say(url, rooms["Loud Corner"], "live")
        await lena.sees_message("live")
        assert frames.rooms() == [rooms["Loud Corner"]]


async def test_rooms_read_elsewhere_and_new_rooms_are_counted(browser: Browser, url: str) -> None:
    rooms = await rooms_of(url, "user_mira_olsen", "Two Devices")
    await say(url, rooms["Two Devices"], "Mira?", mentions=["user_mira_olsen"])
    async with Visitor.arrive(browser, url, "Mira Olsen", size=PHONE, scheme="dark", bypass_csp=True) as mira:
        badges = mira.room("Two Devices").locator(".badge, .mention-badge")
        await expect(badges).to_have_text(["@1 mention of you, ", "1 unread"])
        assert await complaints(mira) == ""
        phone = RestClient(url, "user_mira_olsen")
        await phone.data("POST", f"/v1/chatrooms/{rooms['Two Devices']}/read", json={"seq": 1})
        await expect(badges).to_have_count(0)
        direct = {"userId": "user_mira_olsen", "message": "psst"}
        await wanda(url).data("POST", "/v1/messages/direct", json=direct)
        await expect(mira.room("Wanda Writer").locator(".badge")).to_have_text("1 unread")
        await expect(mira.page).to_have_title("(1) Realtime")


async def test_room_beyond_the_list_appears_when_it_becomes_active(browser: Browser, url: str) -> None:
    rooms = await rooms_of(url, "user_nils_berg", "Near", "Far Away", "Farther Away")
    await say(url, rooms["Farther Away"], "Nils?", mentions=["user_nils_berg"])

    async def shorten(route: Route) -> None:
        response = await route.fetch()
        answer = await response.json()
        answer["data"] = [room for room in answer["data"] if "Far" not in room["name"]]
        answer["pagination"]["pages"] = 4  # more than the page loads, so that it does not take its list for complete
        await route.fulfill(response=response, json=answer)

    async with Visitor.arrive(browser, url) as nils:
        await nils.page.route("**/v1/chatrooms?*", shorten)
        await nils.sign_in("Nils Berg")
        await expect(nils.room("Near")).to_be_visible()
        await expect(nils.room("Farther Away").locator(".mention-badge")).to_be_visible()
        await expect(nils.room("Far Away")).to_have_count(0)
        await say(url, rooms["Far Away"], "hello from afar")
        await expect(nils.room("Far Away").locator(".badge")).to_have_text("1 unread")
        await expect(nils.page).to_have_title("(2, @1) Realtime")


async def test_few_recently_opened_rooms_stay_subscribed(browser: Browser, url: str) -> None:
    names = [f"Room number {number}" for number in range(1, 11)]
    rooms = await rooms_of(url, "user_otto_lang", *names)
    async with Visitor.arrive(browser, url) as otto:
        frames = Frames(otto)
        await otto.sign_in("Otto Lang")
        for name in names:
            await otto.page.get_by_role("button", name=re.compile(f"^{name} ?\\d* online")).click()
            await expect(otto.title()).to_have_text(name)
            await say(url, rooms[name], f"welcome to {name}")
            await otto.sees_message(f"welcome to {name}")
        assert frames.rooms() == [rooms[name] for name in names]
        assert frames.rooms("unsubscribe") == [rooms[names[0]], rooms[names[1]]]
        await say(url, rooms[names[0]], "come back")
        await expect(otto.page.locator("button.room", has_text="1 unread")).to_contain_text("Room number 1")
        await otto.page.locator("button.room", has_text="1 unread").click()
        await otto.sees_message("come back")


async def test_deletions_while_a_room_was_closed_are_shown_when_it_is_reopened(browser: Browser, url: str) -> None:
    writer, room, ids = await long_room(url, "Comes Back", 70)
    await writer.create_room("Somewhere Else")
    async with Visitor.arrive(browser, url, "Nora Quist") as nora:
        await nora.open_room("Comes Back")
        await nora.sees_message("message 70")
        await nora.page.locator(".scroll").evaluate("element => { element.scrollTop = 0; }")
        await nora.sees_message("message 3")
        await nora.open_room("Somewhere Else")
        await writer.data("DELETE", f"/v1/chatrooms/{room}/messages/{ids[2]}")
        await nora.open_room("Comes Back")
        await nora.sees_message("message 70")
        await nora.page.locator(".scroll").evaluate("element => { element.scrollTop = 0; }")
        await expect(by_seq(nora, 3).locator(".is-deleted")).to_be_visible()
        await expect(nora.page.get_by_text("message 3", exact=True)).to_have_count(0)


async def test_mention_deleted_in_an_unopened_room_loses_its_text(browser: Browser, url: str) -> None:
    rooms = await rooms_of(url, "user_petra_voss", "Unopened")
    async with Visitor.arrive(browser, url, "Petra Voss") as petra:
        messages = [await say(url, rooms["Unopened"], text, mentions=["user_petra_voss"]) for text in ("sell", "buy")]
        await expect(petra.page.get_by_text(re.compile("(sell|buy)$"))).to_have_count(2)  # toasts
        await wanda(url).data("DELETE", f"/v1/chatrooms/{rooms['Unopened']}/messages/{messages[0]['id']}")
        await expect(petra.page.get_by_text(re.compile("sell$"))).to_have_count(0)
        await petra.page.get_by_role("button", name="Notifications, 2 unread").click()
        texts = petra.page.get_by_role("dialog", name="Notifications").locator(".notice-text")
        await expect(texts).to_have_text(["buy", "Attachment or deleted message"])
        phone = RestClient(url, "user_petra_voss")
        await phone.data("POST", f"/v1/chatrooms/{rooms['Unopened']}/read", json={"seq": 2})
        await wanda(url).data("DELETE", f"/v1/chatrooms/{rooms['Unopened']}/messages/{messages[1]['id']}")
        await expect(texts).to_have_text(["Attachment or deleted message"] * 2)
