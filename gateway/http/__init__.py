"""HTTP: accepting connections, aiohttp's server with stricter limits, and the application.

Read in this order: `acceptor` (connections as fast as admission control allows), `refusing` (those beyond the bound),
`server` and `upgrade_head` (limits before a request is complete, the upgrade), `app` (routes and the failure envelope),
`cors` (pages of other origins), then `pages` and `dev_tokens` (web pages and development tokens).
"""
