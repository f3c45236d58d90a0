"""Prices: takes ticks from sources, keeps the latest price and the candles of each symbol, and hands them on.

Read `quotes` and `candles` (pure), then `market`, the whole state in memory. `feed` connects the sources with it and
with `announcer` (every tick to notifier), `price_publisher` (prices to gateways) and `staleness`. `journal` brings the
state to disk through `store`. `ownership` and `lease` elect the one process that serves. `sources` hold the origins of
ticks.
"""
