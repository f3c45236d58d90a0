"""Sources of ticks. Each source passes its ticks to a `TickSink`; several may run at once.

Read `tick_sink` first, then `parsing` (the checks that every tick passes). `sim`, `amqp`, `websocket` (with `mapping`)
and `replay` (with `csv_rows`) are the sources.
"""
