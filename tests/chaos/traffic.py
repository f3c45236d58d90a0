"""The load during faults: chat, direct messages, notifications, alerts, prices, and users that come and go."""

import asyncio
import itertools
import logging
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager, suppress
from random import Random
from typing import Any

import aio_pika
import aiohttp
import aiormq

from shared.bus.amqp import Connection
from shared.ids import Prefix, new_id
from shared.times import now_ms, to_iso
from tests.chaos.client import COMMUNITY, ChaosClient, Clock, key_of_alert
from tests.chaos.ledger import Ledger
from tests.support.events import EXCHANGE, cloud_event
from tests.support.live_client import RestClient

CONFIRM_TIMEOUT_S = 5.0
REST_TIMEOUT_S = 8.0
LATE_COMMAND_S = 6.0  # after this time a failed command either took effect or never will
REMEMBERED_EVENTS = 40
HEAVY_BYTES = 6_000
PRICE_START = 100.0
WAITING_MAX = 50
ALERT_SYMBOLS = 100
ONCE_SHARE = 0.2  # of messages go without `clientMessageId`
BROKER_FAILURES = (aiormq.exceptions.AMQPError, aiormq.exceptions.ChannelInvalidStateError, OSError, TimeoutError)
REST_FAILURES = (aiohttp.ClientError, OSError, TimeoutError, ValueError)

Activity = tuple[Callable[[], Coroutine[Any, Any, None]], float]  # what to do, and how often a second


@contextmanager
def quiet_connections() -> Iterator[None]:
    """Silence the client library's logs about broken connections, which are intended here."""
    loggers = [logging.getLogger(name) for name in ("aio_pika", "aiormq")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    yield
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


class EventPublisher:
    """An internal service: publishes events one after another, each until a node of the broker has confirmed it."""

    def __init__(self, *amqp_urls: str) -> None:
        self.confirmed: deque[tuple[str, bytes]] = deque(maxlen=REMEMBERED_EVENTS)
        self.resent = 0
        self._urls = itertools.cycle(amqp_urls)
        self._connection: aio_pika.abc.AbstractConnection | None = None
        self._exchange: aio_pika.abc.AbstractExchange | None = None
        self._turn = asyncio.Lock()

    async def publish(self, routing_key: str, body: bytes) -> None:
        """Publish an event and return once the broker has confirmed it."""
        async with self._turn:
            for attempt in itertools.count():
                self.resent += attempt > 0
                try:
                    async with asyncio.timeout(CONFIRM_TIMEOUT_S):
                        await self._publish_once(routing_key, body)
                    break
                except BROKER_FAILURES:
                    await self.close()
                    await asyncio.sleep(0.2)
            self.confirmed.append((routing_key, body))

    async def repeat(self) -> int:
        """Publish the latest events again."""
        events = list(self.confirmed)
        for routing_key, body in events:
            await self.publish(routing_key, body)
        return len(events)

    async def close(self) -> None:
        """Drop the connection; the next event opens another."""
        connection, self._connection, self._exchange = self._connection, None, None
        if connection is not None:
            with suppress(*BROKER_FAILURES):
                async with asyncio.timeout(1.0):
                    await connection.close()

    async def _publish_once(self, routing_key: str, body: bytes) -> None:
        if self._exchange is None:
            self._connection = await aio_pika.connect(
                next(self._urls), timeout=CONFIRM_TIMEOUT_S, connection_class=Connection
            )
            self._exchange = await (await self._connection.channel()).get_exchange(EXCHANGE, ensure=False)
        message = aio_pika.Message(body, delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
        await self._exchange.publish(message, routing_key, timeout=CONFIRM_TIMEOUT_S)


class TrafficRates:
    """The rate of each activity, per second."""

    def __init__(self, scale: float = 1.0) -> None:
        self.messages = 30.0 * scale
        self.notifications = 5.0 * scale
        self.ticks = 5.0 * scale
        self.alerts = 0.5 * scale
        self.fidgets = 2.0 * scale
        self.comings = 0.4 * scale
        self.victim_messages = 4.0 * scale
        self.removals = 0.25
        self.bans = 0.1
        self.roles = 2.0 * scale
        self.changes = 2.0 * scale


class Traffic:
    """All activities over one set of clients. Runs until `stop`; then activities in progress finish."""

    def __init__(
        self,
        url: str,
        clients: Sequence[ChaosClient],
        publisher: EventPublisher,
        ledger: Ledger,
        clock: Clock,
        seed: int,
    ) -> None:
        self.clients = list(clients)
        self.publisher = publisher
        self.counts: Counter[str] = Counter()
        self.visitors: list[ChaosClient] = []  # clients that come and go
        self._url = url
        self._ledger = ledger
        self._clock = clock
        self._random = Random(seed)
        self._stop = asyncio.Event()
        self._run = new_id(Prefix.EVENT)

    def event_id(self, name: str) -> str:
        """Return the id of this run's event of that name: ids of earlier runs on the same system are duplicates."""
        return f"{self._run}_{name}"

    def stop(self) -> None:
        """Start no further activity."""
        self._stop.set()

    async def run(
        self,
        rates: TrafficRates,
        rooms: Sequence[str],
        pairs: Sequence[tuple[str, str]],
        heavy: str,
        further: Sequence[Activity] = (),
    ) -> None:
        """Return once stopped and every activity is finished, the `further` ones included.

        Unacknowledged messages stay with their clients.
        """
        self._rooms, self._pairs, self._heavy = list(rooms), list(pairs), heavy
        async with asyncio.TaskGroup() as tasks:
            for act, rate in (
                (self._chat, rates.messages),
                (self._notify, rates.notifications),
                (self._tick, rates.ticks),
                (self._alert, rates.alerts),
                (self._fidget, rates.fidgets),
                (self._come_or_go, rates.comings),
                *further,
            ):
                tasks.create_task(self._often(act, rate, tasks))

    async def _often(self, act: Any, rate: float, tasks: asyncio.TaskGroup) -> None:
        while not self._stop.is_set():
            tasks.create_task(act())
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), self._random.expovariate(rate))

    def _number(self, what: str) -> int:
        self.counts[what] += 1
        return self.counts[what]

    async def _chat(self) -> None:
        online = [client for client in self.clients if client.is_online and client.waiting < WAITING_MAX]
        if not online:
            return
        client = self._random.choice(online)
        partners = [there for here, there in self._pairs if here == client.user_id]
        if partners and self._random.random() < 0.2:
            key = f"d{self._number('direct messages')}"
            await client.send_direct(key, self._random.choice(partners), key)
            return
        room = self._random.choice([room for room in client.rooms if room in self._rooms])
        if room != self._heavy and self._random.random() < ONCE_SHARE:
            await client.send_once(f"o{self._number('messages without an id')}", room)
            return
        key = f"m{self._number('messages')}"
        await client.send(key, room, key * (HEAVY_BYTES // len(key)) if room == self._heavy else key)

    async def _notify(self) -> None:
        number = self._number("notifications")
        key = f"evt_{number}"
        users = sorted({client.user_id for client in self.clients})
        chosen = self._random.sample(users, 1 if number % 4 else min(5, len(users)))
        if number % 10 == 0:
            post = {"postId": key, "communityId": COMMUNITY}
            event = cloud_event(self.event_id(f"post_{number}"), "post.created", post)
            await self.publisher.publish("post.created", event)
        inboxes = [f"inbox:{user}" for user in chosen]
        self._ledger.note_sent(key, "publisher", inboxes, self._clock())
        data = {"title": key, "message": "m", "priority": "low"}
        body = cloud_event(self.event_id(key), "notification.created", data, audience=f"users:{','.join(chosen)}")
        await self.publisher.publish("notification.created", body)
        for inbox in inboxes:
            self._ledger.note_acked(key, inbox, self._clock())

    async def _tick(self) -> None:
        number = self._number("ticks")
        symbols = self.clients[0].symbols
        symbol, price = symbols[number % len(symbols)], round(PRICE_START + number / 100, 2)
        await self._move(symbol, price, f"tick_{number}")

    async def quote(self, symbols: Sequence[str]) -> None:
        """Publish the first price of symbols, which makes them known."""
        for symbol in symbols:
            await self._move(symbol, PRICE_START, f"first_{symbol}")

    async def _move(self, symbol: str, price: float, name: str) -> None:
        data = {"symbol": symbol, "price": price, "timestamp": to_iso(now_ms())}
        await self.publisher.publish("market.tick", cloud_event(self.event_id(name), "market.tick", data))

    async def _alert(self) -> None:
        """Set an alert at a price of its own, then publish prices on either side and one more beyond.

        The symbols come again after 100 alerts, so that a run of hours does not fill the services with symbols.
        """
        number = self._number("alerts")
        symbol, price, client = f"ALERT{number % ALERT_SYMBOLS}", 10.0 * number, self._random.choice(self.clients)
        key, inbox = key_of_alert(symbol, price), f"inbox:{client.user_id}"
        self._ledger.note_sent(key, client.name, [inbox], self._clock())
        is_created = await self._create_alert(RestClient(self._url, client.user_id), symbol, price)
        for distance in (-1.0, 1.0, -0.5, 2.0):
            await self._move(symbol, price + distance, f"{key}_{distance}")
        if is_created:
            self._ledger.note_acked(key, inbox, self._clock())

    async def _create_alert(self, rest: RestClient, symbol: str, price: float) -> bool:
        alert = {"symbol": symbol, "direction": "above", "price": price}
        if (await call_rest(rest, "POST", "/v1/alerts", json=alert))[0] == 201:
            return True
        await asyncio.sleep(LATE_COMMAND_S)
        while True:
            status, body = await call_rest(rest, "GET", "/v1/alerts?limit=100")
            if status == 200:
                return any((one["symbol"], one["price"]) == (symbol, price) for one in body["data"])
            await asyncio.sleep(0.5)

    async def _fidget(self) -> None:
        """Join, leave and mark as read: calls that may fail during a fault and must leave all counts correct."""
        client, room = self._random.choice(self.clients), self._random.choice(self._rooms)
        someone = RestClient(self._url, f"fidget-{self._random.randint(1, 10)}")
        match self._random.randrange(3):
            case 0:
                seq = {"seq": client.position(f"room:{room}")}
                await call_rest(RestClient(self._url, client.user_id), "POST", f"/v1/chatrooms/{room}/read", json=seq)
            case 1:
                await call_rest(someone, "POST", f"/v1/chatrooms/{room}/join")
            case _:
                await call_rest(someone, "POST", f"/v1/chatrooms/{room}/leave")

    async def _come_or_go(self) -> None:
        if self.visitors:
            visitor = self._random.choice(self.visitors)
            if visitor.is_online:
                visitor.pause()
            else:
                visitor.resume()


async def call_rest(rest: RestClient, method: str, path: str, **options: Any) -> tuple[int, Any]:
    """Return the status and the body; status 0 if there was no answer."""
    try:
        async with asyncio.timeout(REST_TIMEOUT_S):
            return await rest.call(method, path, **options)
    except REST_FAILURES:
        return 0, None
