"""Prices: ingests ticks from sources, keeps the latest price and the candles of each symbol, and delivers them.

Read `quotes` and `candles` (pure), then `market`, the whole state in memory. `feed` connects it to the `sources` and
to `announcer` (every tick to notifier), `price_publisher` (prices to gateways) and `staleness`. `journal` writes the
state to disk through `store`; `dedup` recognises repeated events. `ownership` and `lease` elect the one process that
serves. `queries` answers gateways; `settings`, `metrics`.
"""
