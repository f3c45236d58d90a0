"""REST under `/v1`.

Reading order: `call` (how a call is declared and served), `envelope` (request parsing and response envelopes), then the
groups of calls, which `groups` lists for the server and the OpenAPI document: `chat`, `messages`, `search`, `market`,
`inbox`. `piecewise_body` writes large answers as their clients read them.
"""
