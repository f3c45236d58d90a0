"""The newest prices of symbols, fetched from market_feed."""

import asyncio
from collections.abc import Sequence

from gateway.backend import Backend
from gateway.fanout.hub import Hub
from shared.bus.delivery import Delivery, DeliveryKind, market_channel
from shared.commands.command import GATEWAY
from shared.protocol.server_frames import frame


async def fetch_prices(backend: Backend, hub: Hub, symbols: Sequence[str]) -> list[str]:
    """Deliver the newest prices of symbols to their channels. Return the unknown symbols.

    Raises Refusal and Unavailable.
    """
    answer = await backend.prices(GATEWAY, tuple(symbols))
    now_s = asyncio.get_running_loop().time()
    for price in answer.prices:
        line = Delivery(
            market_channel(price.symbol), DeliveryKind.LATEST, price.seq, price.symbol, frame("market:price", price)
        )
        hub.deliver(line, now_s)
    return list(answer.unknown)
