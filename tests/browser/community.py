"""Users for screenshots, their rooms and their messages."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, NamedTuple, Self
from urllib.parse import quote

from gateway.http.dev_tokens import user_id_of
from tests.support.live_client import LiveClient, RestClient

ALERTS = (
    ("XAU/USD", "above", 2350.0),
    ("EUR/USD", "below", 1.1),
    ("BTC/USD", "above", 90_000.0),
    ("WTI/USD", "below", 61.5),
)
DIRECT = (("Marcus Chen", "Could you look over my sizing sheet?"), ("Sofia Lindqvist", "Back on Thursday."))
TYPING_RENEWED_S = 2.5


class RoomPlan(NamedTuple):
    """A room, its creator, and whether the viewer is a member."""

    name: str
    creator: str
    description: str
    joined: bool = True
    type: str = "public"


class BrowserUser(NamedTuple):
    """A member with REST access and, while online, a live socket."""

    caller: RestClient
    live: LiveClient | None


HERE = ("Marcus Chen", "Priya Nair", "Tom Okafor", "Elena Rossi", "Jonas Weber")
AWAY = ("Sofia Lindqvist", "Diego Alvarez")
ROOMS = (
    RoomPlan("XAU/USD Trading Room", "Marcus Chen", "Gold: levels, flows and the macro behind them"),
    RoomPlan("EUR/USD Trading Room", "Priya Nair", "Trades and strategies"),
    RoomPlan("London Open", "Elena Rossi", "The first two hours, every day"),
    RoomPlan("Risk & Sizing", "Ada Lovelace", "How much, not whether", type="group"),
    RoomPlan("Crypto Majors", "Jonas Weber", "BTC and ETH, no altcoins", joined=False),
    RoomPlan("Oil & Energy", "Tom Okafor", "Inventories on Wednesdays", joined=False),
)
DESK = (
    (
        "Marcus Chen",
        "Morning all. Gold held 2,385 twice overnight, the second time on half the volume.",
    ),
    ("Priya Nair", "Saw that. Real yields barely moved though, so I read it as positioning rather than a bid."),
    ("Priya Nair", "Still flat here until the CPI print."),
    ("Ada Lovelace", "Long from 2,391, stop under 2,384. Half size into the number."),
    ("Tom Okafor", "Same idea, smaller. What is your target?"),
    ("Ada Lovelace", "First third at 2,412, the rest trails on the 1h swing low."),
    ("Elena Rossi", "Asia desk says physical demand is back after the dip.\nPremiums in Shanghai are up to $28."),
    ("Marcus Chen", "That fits. 2,400 is the line: above it the stops from last Thursday are next."),
    ("Jonas Weber", "Careful with spreads at 13:30, they went to 90 cents last month."),
)
EDITED_TEXT = "Careful with spreads at 13:30 New York, they went to 90 cents last month."
LAST_TEXT = "I pinned the levels."
ELSEWHERE = (
    ("EUR/USD Trading Room", "Priya Nair", "1.0850 again. Third time this week."),
    ("EUR/USD Trading Room", "Jonas Weber", "Dollar index is rolling over on the 4H."),
    ("London Open", "Elena Rossi", "Quiet open. Ranges are half of the 20-day average."),
    ("Risk & Sizing", "Ada Lovelace", "Reminder: 0.5 % a trade while the number is out."),
    ("Crypto Majors", "Jonas Weber", "Funding flipped negative for the first time since March."),
    ("Oil & Energy", "Tom Okafor", "API showed a 3.1 M draw."),
)


class Community:
    """All users and their activity while the screenshots are taken."""

    def __init__(self, people: dict[str, BrowserUser], rooms: dict[str, str]) -> None:
        self._people = people
        self._rooms = rooms
        self._round = 0

    @classmethod
    @asynccontextmanager
    async def gather(cls, url: str, viewer: str) -> AsyncIterator[Self]:
        """Connect all users, create the rooms and send messages; the viewer has read everything and set alerts."""
        async with AsyncExitStack() as stack:
            people: dict[str, BrowserUser] = {}
            for name in (viewer, *HERE, *AWAY):
                first, last = name.split(" ")
                user_id = user_id_of(name)
                live = None
                if name in HERE:
                    live = await LiveClient.as_user(url, user_id, firstName=first, lastName=last)
                    stack.push_async_callback(live.close)
                people[name] = BrowserUser(RestClient(url, user_id, firstName=first, lastName=last), live)
            community = cls(people, {})
            await community._make_rooms(viewer)
            await community._talk(viewer)
            yield community

    async def _make_rooms(self, viewer: str) -> None:
        for plan in ROOMS:
            creator = self._people[plan.creator].caller
            members = [name for name in self._people if plan.joined or name != viewer]
            room = self._rooms[plan.name] = await creator.create_room(
                plan.name,
                plan.type,
                description=plan.description,
                memberIds=[user_id_of(name) for name in members if plan.type != "public"],
            )
            for name in members:
                await self._people[name].caller.data("POST", f"/v1/chatrooms/{room}/join")

    async def _talk(self, viewer: str) -> None:
        for author, text in DESK:
            await self._say(ROOMS[0].name, author, text)
        await self._respond(viewer)
        for room, author, text in ELSEWHERE:
            await self._say(room, author, text)
        me = self._people[viewer].caller
        for author, text in DIRECT:
            body = {"userId": user_id_of(viewer), "message": text}
            await self._people[author].caller.data("POST", "/v1/messages/direct", json=body)
        for room in await me.data("GET", "/v1/chatrooms"):
            if room["isMember"]:
                await me.data("POST", f"/v1/chatrooms/{room['id']}/read", json={"seq": room["lastSeq"]})
        for symbol, direction, price in ALERTS:
            await me.data("POST", "/v1/alerts", json={"symbol": symbol, "direction": direction, "price": price})

    async def _respond(self, viewer: str) -> None:
        """React, reply, edit, delete, mention and pin in the first room."""
        room = f"/v1/chatrooms/{self._rooms[ROOMS[0].name]}"
        newest_first = await self._people[viewer].caller.data("GET", f"{room}/messages")
        ids = [message["id"] for message in reversed(newest_first)]
        for emoji, names in (("👍", HERE[1:4]), ("🔥", (HERE[4], viewer))):
            for name in names:
                await self._people[name].caller.data("PUT", f"{room}/messages/{ids[0]}/reactions/{quote(emoji)}")
        await self._people["Jonas Weber"].caller.data(
            "PATCH", f"{room}/messages/{ids[-1]}", json={"message": EDITED_TEXT}
        )
        slip = await self._say(ROOMS[0].name, "Tom Okafor", "wrong room, sorry")
        await self._people["Tom Okafor"].caller.data("DELETE", f"{room}/messages/{slip}")
        mentioning = {"replyTo": ids[5], "mentions": [user_id_of(viewer)]}
        await self._say(
            ROOMS[0].name, "Marcus Chen", f"@{viewer} then 2,400 is yours. I pinned the levels.", **mentioning
        )
        await self._people["Marcus Chen"].caller.data("PUT", f"{room}/pins/{ids[0]}")

    async def _say(self, room: str, author: str, text: str, **extras: Any) -> str:
        """Send a message and return its id."""
        path = f"/v1/chatrooms/{self._rooms[room]}/messages"
        message = await self._people[author].caller.data("POST", path, json={"message": text, **extras})
        return str(message["id"])

    async def add_unread(self) -> None:
        """Send a few messages that the viewer has not read."""
        self._round += 1
        await self._say("EUR/USD Trading Room", "Tom Okafor", f"Offer at 1.08{50 + self._round} is being eaten.")
        await self._say("EUR/USD Trading Room", "Priya Nair", "Adding here, stop to break-even.")
        await self._say("London Open", "Elena Rossi", "First range is done. Watching the break.")

    @asynccontextmanager
    async def typing(self) -> AsyncIterator[None]:
        """Keep a user typing in the first room for the duration of the block."""
        live = self._people["Elena Rossi"].live
        assert live is not None

        async def type_on() -> None:
            while True:
                await live.send("chat:typing", chatroomId=self._rooms[ROOMS[0].name], isTyping=True)
                await asyncio.sleep(TYPING_RENEWED_S)

        task = asyncio.create_task(type_on())
        try:
            yield
        finally:
            task.cancel()
