"""Cross-origin requests to REST, as the Fetch standard defines them: https://fetch.spec.whatwg.org/#http-cors-protocol.

Origins of `ALLOWED_ORIGINS` may send requests and read the answers, with credentials. If `ALLOWED_ORIGINS` is empty or
`*`, every origin is allowed: the request's origin is echoed, without credentials. Another origin gets no CORS header,
so its browser hides the answer. Only paths under `/v1/` take part: another page must not get a development token.
"""

from collections.abc import Awaitable, Callable, Sequence

from aiohttp import hdrs, web

from gateway.origins import OriginPolicy

PREFIX = "/v1/"
METHODS = "GET, HEAD, POST, PUT, PATCH, DELETE"
REQUEST_HEADERS = "Authorization, Content-Type, X-Request-Id"
ANSWER_HEADERS = "Retry-After, X-Request-Id"
MAX_AGE_S = 7200  # the longest that Chromium keeps the answer to a preflight

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def install(app: web.Application, allowed: Sequence[str]) -> None:
    """Answer preflights without requiring a token, and add CORS headers to the answers under `/v1/`."""
    policy = OriginPolicy(allowed)

    async def add_headers(request: web.Request, response: web.StreamResponse) -> None:
        if request.path.startswith(PREFIX):
            response.headers.add(hdrs.VARY, hdrs.ORIGIN)
            origins = request.headers.getall(hdrs.ORIGIN, [])
            response.headers.update(headers_for(policy, origins, is_preflight=is_preflight(request)))

    app.middlewares.append(answer_preflight)
    app.on_response_prepare.append(add_headers)


def headers_for(policy: OriginPolicy, origins: Sequence[str], *, is_preflight: bool) -> dict[str, str]:
    """Return the CORS headers of an answer to a request with these Origin headers."""
    if len(origins) != 1 or not policy.allows(origins[0]):
        return {}
    headers: dict[str, str] = {hdrs.ACCESS_CONTROL_ALLOW_ORIGIN: origins[0]}
    if not policy.is_open:
        headers[hdrs.ACCESS_CONTROL_ALLOW_CREDENTIALS] = "true"
    if is_preflight:
        headers[hdrs.ACCESS_CONTROL_ALLOW_METHODS] = METHODS
        headers[hdrs.ACCESS_CONTROL_ALLOW_HEADERS] = REQUEST_HEADERS
        headers[hdrs.ACCESS_CONTROL_MAX_AGE] = str(MAX_AGE_S)
    else:
        headers[hdrs.ACCESS_CONTROL_EXPOSE_HEADERS] = ANSWER_HEADERS
    return headers


def is_preflight(request: web.BaseRequest) -> bool:
    """Return whether a browser asks for permission to send a request of another origin."""
    asks = hdrs.ORIGIN in request.headers and hdrs.ACCESS_CONTROL_REQUEST_METHOD in request.headers
    return asks and request.method == hdrs.METH_OPTIONS and request.path.startswith(PREFIX)


@web.middleware
async def answer_preflight(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer a preflight without a token; `install` adds the headers."""
    return web.Response(status=204) if is_preflight(request) else await handler(request)
