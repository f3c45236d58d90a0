"""REST under `/v1`.

Reading order: `call` (how a call is declared and served), `envelope` (request parsing and response envelopes), then the
groups of calls: `chat`, `search`, `market`, `inbox`, listed in `groups`. The server and the OpenAPI document both read
`groups`. `piecewise_body` writes large answers as their clients read them.
"""
