"""Prices: takes ticks in from its sources, keeps the latest price and the candles of each symbol, and hands them on."""
