"""HTTP: accepting connections, aiohttp's server with stricter limits, and the application.

Read in this order: `acceptor` (connections at the pace that admission allows), `server` (limits before a request is
complete), `app` (routes and the failure envelope), then `pages` and `dev_tokens` (web pages and tokens of DEV_MODE).
"""
